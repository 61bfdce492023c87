"""Lists the shots of a video as a table, JSON or CSV, and as a contact sheet: the command `linvt shots`."""

import argparse
import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from linvt_cli.cli_checks import check_folder, check_new_picture, check_video
from linvt_cli.cli_choices import MAX_THUMBNAILS
from linvt_cli.cli_output import about_video, add_json_option, describe_video, table


if TYPE_CHECKING:
    from linvt.processors.video.sampled_video import SampledVideo

SHOT_COLUMNS = ("start_frame", "end_frame", "start_seconds", "end_seconds")


def add_shots_command(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("shots", help="list the shots of a video", description=shots.__doc__)
    command.set_defaults(check=check_shots, run=shots, show=show_shots)
    command.add_argument("video", help="path or URL of a video")
    command.add_argument("--autoshot", metavar="WEIGHTS", help="Hub id or folder (default: those of this package)")
    command.add_argument(
        "--contact-sheet",
        metavar="PICTURE",
        help="also draw a frame from the middle of each shot and save them as one picture, such as shots.png; of more "
        f"than {MAX_THUMBNAILS} shots, {MAX_THUMBNAILS} that are evenly spaced",
    )
    formats = command.add_mutually_exclusive_group()
    add_json_option(formats)
    formats.add_argument("--csv", dest="show", action="store_const", const=show_csv, help="print for spreadsheets")


def check_shots(options: argparse.Namespace) -> None:
    check_video(options.video)
    if options.autoshot is not None:
        check_folder(options.autoshot)
    if options.contact_sheet is not None:
        check_new_picture(options.contact_sheet)
        picture, video = Path(options.contact_sheet), Path(options.video)
        if picture.exists() and video.exists() and picture.samefile(video):
            raise ValueError(f"the contact sheet would overwrite the video {video}; give another name.")


def shots(options: argparse.Namespace) -> dict:
    """Lists the shots of a video: start and end (exclusive), in frames and seconds."""
    from linvt.processors.shots.contact_sheet import check_picture_format, thumbnail
    from linvt.processors.shots.shot_detection import load_shot_detector
    from linvt.processors.video.video_reading import read_video
    from linvt.progress import Progress

    if options.contact_sheet is not None:
        check_picture_format(options.contact_sheet)  # before the video is read, which may take minutes
    detect_shots = load_shot_detector(options.autoshot)
    with Progress("reading", hidden=options.json) as progress:
        video = read_video(
            options.video,
            # Enough for one from every shot. How many shots there are is not known yet, and reading (for a URL also
            # loading) the video again for exactly those would cost more than frames that are not needed.
            num_frames=1 if options.contact_sheet is None else MAX_THUMBNAILS,
            transform=thumbnail,
            detect_shots=detect_shots,
            on_progress=progress.reach,
        )
    ranges = zip(video.shots_frames, video.shots_seconds, strict=True)
    result = {
        "video": about_video(options.video, video),
        "shots": [
            dict(zip(SHOT_COLUMNS, (*frames, *(round(seconds, 3) for seconds in times)), strict=True))
            for frames, times in ranges
        ],
    }
    if options.contact_sheet is not None:
        result["contact_sheet"] = _save_contact_sheet(options.contact_sheet, video)
    return result


def show_shots(result: dict) -> str:
    lines = [f"{'shot':>5} {'start frame':>12} {'end frame':>12} {'start s':>10} {'end s':>10} {'seconds':>10}"]
    for number, shot in enumerate(result["shots"]):
        start_frame, end_frame, start, end = (shot[column] for column in SHOT_COLUMNS)
        lines.append(f"{number:>5} {start_frame:>12} {end_frame:>12} {start:>10.2f} {end:>10.2f} {end - start:>10.2f}")
    num_shots = len(result["shots"])
    rows = {"video": f"{describe_video(result['video'])}, {_of_shots(num_shots, num_shots)}"}
    sheet = result.get("contact_sheet")
    if sheet is not None:
        rows["contact sheet"] = f"{sheet['path']}, {_of_shots(sheet['num_shots'], num_shots)}"
    return "\n".join([table(rows), *lines])


def show_csv(result: dict) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["shot", *SHOT_COLUMNS])
    for number, shot in enumerate(result["shots"]):
        writer.writerow([number, *(shot[column] for column in SHOT_COLUMNS)])
    return text.getvalue().removesuffix("\n")


def _save_contact_sheet(path: str, video: "SampledVideo") -> dict:
    from linvt.checkpoints.atomic_file import new_file
    from linvt.processors.shots.contact_sheet import contact_sheet

    places = _middle_frames(video)
    captions = []
    for shot in places:
        start, end = video.shots_seconds[shot]
        captions.append(f"{shot}    {_clock(start)}    {end - start:.2f} s")
    heading = _of_shots(len(places), len(video.shots_frames))
    picture = contact_sheet(video.frames[list(places.values())], captions, heading)
    with new_file(path) as part:
        picture.save(part)
    return {"path": path, "num_shots": len(places)}


def _middle_frames(video: "SampledVideo") -> dict[int, int]:
    """
    Returns, for each shot with a picked frame, in order, the place in `video.frames` of the one nearest to the middle
    of the shot. As the frames of a shot are spread evenly, it lies in the middle half of the shot.
    """

    def from_middle(place: int) -> int:
        start, end = video.shots_frames[video.shot_ids[place]]
        return abs(video.frame_indices[place] - (start + end) // 2)

    nearest: dict[int, int] = {}
    for place, shot in enumerate(video.shot_ids):
        nearest[shot] = min(nearest.get(shot, place), place, key=from_middle)
    return nearest


def _of_shots(number: int, total: int) -> str:
    if number < total:
        return f"{number} of {total} shots, evenly spaced"
    return f"{total} shot{'s' if total > 1 else ''}"


def _clock(seconds: float) -> str:
    """Returns a time as players show it, such as 1:02:03.45."""
    minutes, hundredths = divmod(round(seconds * 100), 6000)
    hours, minutes = divmod(minutes, 60)
    rest = f"{hundredths / 100:05.2f}"
    return f"{hours}:{minutes:02}:{rest}" if hours else f"{minutes}:{rest}"
