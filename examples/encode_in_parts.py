"""Memory of several machines: sees a long video in parts, each on a machine of its own, and merges their memories.

Each machine writes the memory of its part; without `--part` all parts that are not there yet are seen here. Merged,
they are the memory of the whole video if the parts meet where nothing that SVR looks at crosses: at the border of a
window, which `max_shot_frames` frames of one shot make, or where a shot begins. So shots are not looked for here, and
parts last a multiple of `max_shot_frames / fps` seconds. (To cut at shots, give `start_seconds` and `end_seconds` of
those that `linvt shots` lists.)

    python examples/encode_in_parts.py lecture.mp4 lecture.memory.safetensors --model MODEL --parts 4 --part 2
    python examples/encode_in_parts.py lecture.mp4 lecture.memory.safetensors --model MODEL --parts 4
"""

import argparse
from pathlib import Path

import av

from linvt import LinVTConfig, LinVTForConditionalGeneration, LinVTProcessor, VideoMemory
from linvt.video_tokenizer.video_memory import MEMORY_SUFFIX


def part_borders(seconds: float, fps: float, parts: int, config: LinVTConfig) -> list[tuple[float, float | None]]:
    """Returns start and end of the parts of a video; the last one goes on to its end."""
    window_seconds = config.video_tokenizer_config.max_shot_frames * config.frames_per_patch / fps
    part_seconds = max(round(seconds / parts / window_seconds), 1) * window_seconds
    starts = [number * part_seconds for number in range(parts) if number * part_seconds < seconds]
    return list(zip(starts, [*starts[1:], None], strict=True))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video")
    parser.add_argument("output", help=f"NAME{MEMORY_SUFFIX}; parts are NAME.0{MEMORY_SUFFIX} and so on")
    parser.add_argument("--model", required=True)
    parser.add_argument("--fps", type=float, default=1.0)
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--part", type=int, help="see only this one, from 0")
    options = parser.parse_args(arguments)
    model = LinVTForConditionalGeneration.from_pretrained(options.model)
    processor = LinVTProcessor.from_pretrained(options.model)
    with av.open(options.video) as container:
        seconds = container.duration / av.time_base
    borders = part_borders(seconds, options.fps, options.parts, model.config)
    stem = options.output.removesuffix(MEMORY_SUFFIX)
    paths = [Path(f"{stem}.{number}{MEMORY_SUFFIX}") for number in range(len(borders))]
    if options.part is not None and not 0 <= options.part < len(borders):
        parser.error(f"--part is {options.part}, but this video has {len(borders)} parts, numbered from 0.")
    for number, (path, (start, end)) in enumerate(zip(paths, borders, strict=True)):
        if options.part not in (None, number) or path.exists():
            continue
        pieces = processor.video_processor.iter_video(
            options.video, fps=options.fps, start_seconds=start, end_seconds=end, shot_detection="uniform"
        )
        memory = model.see(pieces)
        memory.save(path)
        print(f"{path}: {memory}")
    if options.part is None:
        whole = VideoMemory.merge(*map(VideoMemory.load, paths))
        whole.save(options.output)
        print(f"{options.output}: {whole}")


if __name__ == "__main__":
    main()
