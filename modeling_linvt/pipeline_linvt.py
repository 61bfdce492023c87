"""`pipeline("video-text-to-text")`: videos and questions in, text out."""

from transformers import AnyToAnyPipeline


class VideoTextToTextPipeline(AnyToAnyPipeline):
    pass
