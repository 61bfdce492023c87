"""What long videos cost that are seen once: peak memory and time by length, and questions about one video.

Memory: whole processes that load a model, see a film of five minutes, of one hour and of three hours at one frame per
second, and save its memory. The film is decoded in full (H.264, 320 x 180, 25 frames per second, written here); the
model is the image-LLM of the small world, wrapped and untrained. Questions: processes that see the film of one hour
and answer 1, 20 and 100 questions. Exit code 1 above 1.1 times the peak memory of five minutes, above 1.5 times the
time of one question for 20, or if a later question is less than 50 times as fast as seeing the film anew.

    python docs/benchmarks/video_memory.py
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np


IMAGE_LLM = Path(__file__).parents[1] / "small_world_runs" / "image_llm"
MINUTES = (5, 60, 180)
QUESTIONS = (1, 20, 100)
MOST_MEMORY, MOST_TIME, LEAST_SPEEDUP = 1.1, 1.5, 50
FPS, SHOT_SECONDS, CLIP_SECONDS = 25, 4, 60


def write_film(path: Path, minutes: int) -> None:
    """Writes shots of drifting noise, coded once for a minute and repeated."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "g": "50", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        packets = []
        for number in range(CLIP_SECONDS * FPS):
            if number % (SHOT_SECONDS * FPS) == 0:
                picture = np.repeat(np.repeat(rng.integers(0, 256, (9, 16, 3), dtype=np.uint8), 20, 0), 20, 1)
            frame = av.VideoFrame.from_ndarray(np.roll(picture, number, 1), format="rgb24")
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for repeat in range(minutes * 60 // CLIP_SECONDS):
            for packet in packets:
                copy = av.Packet(bytes(packet))
                shift = repeat * int(CLIP_SECONDS / packet.time_base)
                copy.pts, copy.dts, copy.duration = packet.pts + shift, packet.dts + shift, packet.duration
                copy.time_base, copy.stream, copy.is_keyframe = packet.time_base, stream, packet.is_keyframe
                container.mux(copy)


def see_and_ask(film: str, memory: str, num_questions: int) -> None:
    """Prints seconds and peak memory of this process as JSON."""
    from transformers import AutoProcessor

    from linvt import LinVTForConditionalGeneration, LinVTProcessor

    started = time.perf_counter()
    model = LinVTForConditionalGeneration.from_image_llm(IMAGE_LLM).eval()
    processor = LinVTProcessor.from_image_llm_processor(AutoProcessor.from_pretrained(IMAGE_LLM), model=model)
    loaded = time.perf_counter()
    seen = model.see(processor.video_processor.iter_video(film, fps=1.0, shot_detection="uniform"))
    seen.save(memory)
    remembered = time.perf_counter()
    for number in range(num_questions):
        question = f"what colour is the {('ring', 'square', 'star')[number % 3]} ?"
        content = [{"type": "video", "video": seen}, {"type": "text", "text": question}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
        )
        model.generate(**inputs, max_new_tokens=16, do_sample=False)
        if number == 0:
            answered = time.perf_counter()
    ended = time.perf_counter()
    result = {
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "frames": seen.num_frames,
        "tokens": len(seen),
        "seeing": remembered - loaded,
        "whole": ended - started,
    }
    if num_questions > 1:
        result["later_question"] = (ended - answered) / (num_questions - 1)
    print(json.dumps(result))


def measured(film: Path, num_questions: int) -> dict:
    command = [sys.executable, __file__, "--see", str(film), str(film.with_suffix(".memory.safetensors"))]
    done = subprocess.run([*command, str(num_questions)], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        films = {minutes: Path(folder, f"{minutes}.mp4") for minutes in MINUTES}
        for minutes, film in films.items():
            write_film(film, minutes)
        by_length = {minutes: measured(film, 0) for minutes, film in films.items()}
        asked = {number: measured(films[60], number) for number in QUESTIONS}
    least = by_length[MINUTES[0]]["peak_mb"]
    print("| minutes | frames seen | tokens kept | peak memory, MB | against 5 minutes | seeing, s |")
    print("|---|---|---|---|---|---|")
    for minutes, run in by_length.items():
        ratio = run["peak_mb"] / least
        counts = f"{run['frames']} | {run['tokens']} | {run['peak_mb']:.0f}"
        print(f"| {minutes} | {counts} | {ratio:.2f} | {run['seeing']:.1f} |")
    print("\n| questions | whole process, s | against one | a later question, ms | against seeing anew |")
    print("|---|---|---|---|---|")
    for number, run in asked.items():
        later = run.get("later_question")
        told = "| | |" if later is None else f"| {1000 * later:.0f} | {run['seeing'] / later:.0f} times as fast |"
        print(f"| {number} | {run['whole']:.1f} | {run['whole'] / asked[1]['whole']:.2f} {told}")
    good = by_length[MINUTES[-1]]["peak_mb"] <= MOST_MEMORY * least
    good &= asked[20]["whole"] <= MOST_TIME * asked[1]["whole"]
    good &= asked[20]["seeing"] >= LEAST_SPEEDUP * asked[20]["later_question"]
    return 0 if good else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--see"]:
        see_and_ask(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        sys.exit(main())
