import numpy as np
import pytest
import torch

from linvt.processors.shots.contact_sheet import check_picture_format, contact_sheet, thumbnail


def coloured_frames(number, height=20, width=30):
    """Each of one colour, all different, and none of them a grey as paper and text are."""
    colours = torch.tensor([[i, 255 - i, 0] for i in range(number)], dtype=torch.uint8)
    return colours[:, :, None, None].repeat(1, 1, height, width)


def place(sheet, frame):
    """Top, bottom, left and right of the pixels of this frame's colour, which must be a whole rectangle."""
    rows, columns = np.nonzero((np.asarray(sheet) == frame[:, 0, 0].numpy()).all(axis=-1))
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    assert len(rows) == (bottom - top) * (right - left)
    return top, bottom, left, right


def luminance(colour):
    """Relative luminance of an sRGB colour (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in np.asarray(colour) / 255]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize(("number", "num_columns"), [(1, 1), (2, 2), (5, 3), (9, 3), (64, 8), (200, 8)])
def test_every_frame_is_whole_and_in_reading_order(number, num_columns):
    frames = coloured_frames(number)
    sheet = contact_sheet(frames, [f"frame {i}" for i in range(number)], "all of them")
    places = [place(sheet, frame) for frame in frames]
    assert all((bottom - top, right - left) == (20, 30) for top, bottom, left, right in places)
    assert [(top, left) for top, _, left, _ in places] == sorted((top, left) for top, _, left, _ in places)
    assert len({left for _, _, left, _ in places}) == num_columns
    assert len({top for top, _, _, _ in places}) == -(-number // num_columns)


@pytest.mark.parametrize("caption", ["7", "7    1:02:03.45    12.34 s, much wider than the frame"])
def test_a_caption_stands_under_its_frame_and_can_be_read(caption):
    frames = coloured_frames(6)
    # The last one makes the room that the other needs.
    with_it, without_it = (contact_sheet(frames, ["", c, "", "", "", caption], "heading") for c in (caption, ""))
    _, bottom, left, _ = place(with_it, frames[1])
    next_left, next_top = place(with_it, frames[2])[2], place(with_it, frames[4])[0]
    changed = np.nonzero((np.asarray(with_it) != np.asarray(without_it)).any(axis=-1))
    rows, columns = (axis.tolist() for axis in changed)
    assert bottom < min(rows) and max(rows) < next_top - 1 and 8 <= max(rows) - min(rows) + 1 <= 20
    assert left <= min(columns) and max(columns) < next_left - 5
    paper, darkest = with_it.getpixel((0, 0)), min(map(with_it.getpixel, zip(columns, rows, strict=True)))
    assert (luminance(paper) + 0.05) / (luminance(darkest) + 0.05) >= 7  # WCAG's enhanced contrast


def test_the_heading_stands_above_all():
    frames = coloured_frames(1)
    sheet = contact_sheet(frames, ["caption"], "a heading that is much wider than one frame")
    top = place(sheet, frames[0])[0]
    rows, columns = np.nonzero(np.asarray(sheet)[: top - 1].sum(axis=-1) < 300)
    assert len(rows) > 0 and columns.max() < sheet.width - 10


def test_one_caption_per_frame():
    for frames, captions in ((coloured_frames(2), ["one"]), (coloured_frames(1)[:0], [])):
        with pytest.raises(ValueError, match="expected one caption per frame"):
            contact_sheet(frames, captions, "")


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(480, 640, (180, 240)), (640, 480, (240, 180)), (12, 16, (180, 240)), (5000, 3, (240, 1)), (1, 1, (240, 240))],
)
def test_thumbnails_keep_the_shape(height, width, expected):
    colour = torch.tensor([250, 3, 128], dtype=torch.uint8)
    small = thumbnail(colour[:, None, None].repeat(1, height, width))
    assert small.shape == (3, *expected) and small.dtype == torch.uint8
    assert (small == colour[:, None, None]).all()


def test_thumbnails_average_over_what_they_leave_out():
    """Stripes one pixel wide become grey; taking every n-th pixel would make them black or white."""
    stripes = torch.zeros(3, 100, 2400, dtype=torch.uint8)
    stripes[..., ::2] = 255
    assert (thumbnail(stripes)[:, 1:-1, 1:-1].int() - 127).abs().max() <= 8


# Names of pictures


@pytest.mark.parametrize("name", ["sheet.png", "sheet.PNG", "a folder.x/sheet.jpeg", "sheet.webp"])
def test_formats_that_pillow_writes_are_taken(name):
    check_picture_format(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sheet", "Pillow writes no pictures named"),
        ("sheet.txt", r"Pillow writes no pictures named \*.txt"),
        ("sheet.psd", "Pillow writes no pictures"),  # a format that it only reads
        ("sheet.xbm", "Pillow writes no pictures"),  # a format without colours
    ],
)
def test_what_cannot_be_written_is_said_beforehand(name, message):
    with pytest.raises(ValueError, match=message):
        check_picture_format(name)
