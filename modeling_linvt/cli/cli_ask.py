"""Answers a question about a video: the command `linvt ask`."""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from linvt_cli.cli_checks import check_folder, check_video
from linvt_cli.cli_output import about_video, add_json_option, describe_video, table


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from linvt.progress import Progress
    from linvt.video_tokenizer.modeling_linvt_video import LinVTVideoModel

_PACKAGE = Path(find_spec("linvt").origin)  # type: ignore[arg-type]  # of its __init__.py, and without importing it
SMALL_MODEL = _PACKAGE.with_name("small_world_model")
SMALL_MODEL_NOTE = "no --model given, so the small model of the package answers, which knows coloured shapes only"
UNIFORM_HINT = "--uniform is much faster: it takes evenly spaced frames and does not look for shots"
SHOTS_LEFT_OUT = "evenly spaced, since finding shots takes long here: --shots does"
MAX_LISTED_FRAMES = 16  # of more, the times of the first and the last are printed


def add_ask_command(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("ask", help="answer a question about a video", description=ask.__doc__)
    command.set_defaults(check=check_ask, run=ask, show=show_answer)
    command.add_argument("video", help="path or URL of a video")
    command.add_argument("question")
    command.add_argument("--model", help="Hub id or folder of a LinVT model (default: the small one of the package)")
    command.add_argument("--num-frames", type=int, help="frames to look at (default: that of the model's processor)")
    command.add_argument(
        "--tokens",
        type=int,
        metavar="N",
        help="video tokens to make of the video, where the video tokenizer leaves that free, as one that merges does "
        "(default: that of the model)",
    )
    spread = command.add_mutually_exclusive_group()
    spread.add_argument("--autoshot", metavar="WEIGHTS", help="find shots with these weights (Hub id or folder)")
    spread.add_argument("--shots", action="store_true", help="look for shots, however long that takes")
    spread.add_argument(
        "--uniform", action="store_true", help="do not look for shots, which is faster, for long videos by far"
    )
    command.add_argument("--max-new-tokens", type=int, default=64, help="longest answer, in tokens (default: 64)")
    command.add_argument("--device", help="where the model runs, such as cuda (default: the CPU)")
    add_json_option(command)


def check_ask(options: argparse.Namespace) -> None:
    check_video(options.video)
    for folder in (options.autoshot, options.model):
        if folder is not None:
            check_folder(folder)


def ask(options: argparse.Namespace) -> dict:
    """Answers a question about a video."""
    import torch

    from linvt.hub.export import load_whole
    from linvt.processors.processing_linvt import LinVTProcessor
    from linvt.progress import Progress

    name = SMALL_MODEL if options.model is None else options.model
    model = load_whole(name, dtype="auto", device_map=_device(options.device))
    processor = LinVTProcessor.from_pretrained(name)
    content = [{"type": "video", "video": options.video}, {"type": "text", "text": options.question}]
    if options.tokens is not None:
        model.config.video_tokenizer_config.check_num_video_tokens(options.tokens)
    settings = {
        "num_frames": options.num_frames,
        "num_video_tokens": options.tokens,
        "autoshot_model": options.autoshot,
        "device": model.device,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    if options.autoshot is not None or options.shots or options.uniform:
        settings["shot_detection"] = "uniform" if options.uniform else "autoshot"
    hint = None if options.uniform else UNIFORM_HINT
    with Progress("reading", hidden=options.json, hint=hint) as progress:
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs={"return_metadata": True, "on_progress": progress.reach, **settings},
        )
    [video] = inputs.pop("video_metadata")
    inputs = inputs.to(model.device)
    # Encoded here and not inside `generate`, which does not say how many tokens the frames had.
    with torch.no_grad():
        frame_tokens, grid = model.encode_video(inputs.pop("pixel_values_videos"), inputs["video_shot_ids"])
    inputs |= {"video_frame_tokens": frame_tokens, "video_token_grid": torch.tensor([grid])}
    with Progress("answering", options.max_new_tokens, hidden=options.json) as progress:
        limits = {"max_new_tokens": options.max_new_tokens, "do_sample": False}
        output = model.generate(**inputs, **limits, streamer=_GenerationProgress(progress))
    prompt_tokens = inputs["input_ids"].shape[1]
    num_frame_tokens = frame_tokens.shape[0] * frame_tokens.shape[1]
    only_merges = model.video_tokenizer.only_merges
    return {
        "video": about_video(options.video, video),
        "frames": [
            {"index": index, "seconds": round(seconds, 3), "shot": shot}
            for index, seconds, shot in zip(video.frame_indices, video.frame_seconds, video.shot_ids, strict=True)
        ],
        "shots_left_out": not (video.looked_for_shots or options.uniform),
        "num_frame_tokens": num_frame_tokens,
        "num_video_tokens": processor.num_video_tokens if options.tokens is None else options.tokens,
        "only_merges": only_merges,
        "merged_frame_tokens": _num_kept(num_frame_tokens, model.video_tokenizer) if only_merges else None,
        "num_prompt_tokens": prompt_tokens,
        "model": "small-world" if options.model is None else str(options.model),
        "unknown_words": _unknown_words(options.question, processor.tokenizer),
        "text": processor.decode(output[0, prompt_tokens:], skip_special_tokens=True),
    }


def show_answer(result: dict) -> str:
    notes = [SMALL_MODEL_NOTE] if result["model"] == "small-world" else []
    if result["only_merges"]:
        notes.append(_merging_note(result))
    if result["unknown_words"]:
        notes.append(f"it does not know the words {', '.join(result['unknown_words'])}")
    note = {"note": "; ".join(notes)} if notes else {}
    # A model may write anything, also what a terminal takes for a command.
    text = "".join(character if character.isprintable() else " " for character in result["text"])
    return table(
        {
            **note,
            "video": describe_video(result["video"]),
            "frames": f"{len(result['frames'])} of {result['video']['num_frames']}, {_times(result['frames'])}"
            + (f"; {SHOTS_LEFT_OUT}" if result["shots_left_out"] else ""),
            "tokens": f"{result['num_frame_tokens']} of the frames -> {result['num_video_tokens']} of the video; "
            f"{result['num_prompt_tokens']} into the LLM with the text",
            "text": text.strip() or "(empty)",
        }
    )


def _num_kept(num_frame_tokens: int, video_tokenizer: "LinVTVideoModel") -> int:
    config = video_tokenizer.config
    return min(num_frame_tokens, config.top_k) if config.use_svr else num_frame_tokens


def _merging_note(result: dict) -> str:
    """Says what became of the frame tokens; of other parts, such as LoRA in the LLM, weights do not tell."""
    merged, number = result["merged_frame_tokens"], result["num_video_tokens"]
    note = "nothing was trained in the video tokenizer; "
    if merged < number:
        return f"{note}{merged} frame tokens are fewer than {number} video tokens, so they are repeated, not merged"
    kept = f", of {result['num_frame_tokens']}," if merged < result["num_frame_tokens"] else ""
    return f"{note}{merged} frame tokens{kept} are merged into {number} video tokens"


def _times(frames: list[dict]) -> str:
    times = [f"{frame['seconds']:.2f}" for frame in frames]
    return f"at {' '.join(times)} s" if len(times) <= MAX_LISTED_FRAMES else f"from {times[0]} to {times[-1]} s"


class _GenerationProgress:
    """Reports generated tokens; a streamer, in the sense of `generate`."""

    def __init__(self, progress: "Progress"):
        self.progress, self.has_prompt = progress, False

    def put(self, value: "torch.Tensor") -> None:
        if self.has_prompt:
            self.progress.advance()
        self.has_prompt = True  # comes first, as a whole

    def end(self) -> None:
        pass


def _unknown_words(text: str, tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Returns the words that the tokenizer maps to its unknown token."""
    encoding = tokenizer(text, return_offsets_mapping=True)
    spans = zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
    return [text[start:end] for token, (start, end) in spans if token == tokenizer.unk_token_id and end > start]


def _device(name: str | None) -> "torch.device":
    import torch

    try:
        device = torch.device(name or "cpu")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the model cannot run on {name!r}: {error}") from error
    return device
