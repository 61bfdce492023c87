"""Registers the image-LLMs that Transformers lacks with its Auto classes."""

from linvt.configuration.configuration_mipha import MiphaConfig
from linvt.configuration.configuration_molmo import MolmoConfig
from linvt.configuration.configuration_qwen_vl import QwenVLConfig
from linvt.configuration.configuration_xgen_mm import XGenMMConfig
from linvt.ports.modeling_mipha import MiphaForConditionalGeneration
from linvt.ports.modeling_molmo import MolmoForConditionalGeneration
from linvt.ports.modeling_qwen_vl import QwenVLForConditionalGeneration
from linvt.ports.modeling_xgen_mm import XGenMMForConditionalGeneration
from linvt.ports.port_registration import register_port
from linvt.processors.port_processors.image_processing_molmo import MolmoImageProcessor
from linvt.processors.port_processors.image_processing_xgen_mm import XGenMMImageProcessor
from linvt.processors.port_processors.processing_molmo import MolmoProcessor
from linvt.processors.port_processors.processing_qwen_vl import QwenVLProcessor
from linvt.processors.port_processors.processing_xgen_mm import XGenMMProcessor


# Configuration, model, and what it has of its own for its inputs. Mipha has the processor of LLaVA, and Qwen-VL the
# image processor of CLIP.
PORTS = (
    (MiphaConfig, MiphaForConditionalGeneration),
    (MolmoConfig, MolmoForConditionalGeneration, MolmoProcessor, MolmoImageProcessor),
    (QwenVLConfig, QwenVLForConditionalGeneration, QwenVLProcessor),
    (XGenMMConfig, XGenMMForConditionalGeneration, XGenMMProcessor, XGenMMImageProcessor),
)


def register_ports() -> None:
    for port in PORTS:
        register_port(*port)


__all__ = ["PORTS", "register_ports"]
