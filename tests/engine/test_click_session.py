"""The click-and-track window without a window: what mouse and keys do, and what is seen of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.propagation.clickable import ColourNetwork, ColourSegmenter, square_labels, squares
from tests.propagation.test_click_and_track import Broken, Live
from vosssl.clip import Clip
from vosssl.data.io import embedded_palette, read_labels
from vosssl.data.palette import davis_palette
from vosssl.data.video import Video, clip_video
from vosssl.data.video_io import VideoReader
from vosssl.engine import click_drawing as drawing
from vosssl.engine.click_session import ClickSession
from vosssl.engine.click_window import key_name, run_window
from vosssl.propagation.click_and_track import ClickAndTrack
from vosssl.propagation.image_prompting import ImagePrompter

SCALE = 4  # frames of 48 x 32 are shown at 192 x 128
FIRST, SECOND = (22, 22), (42, 82)  # pixels of the picture on the two squares of frame 0


def opened(folder: Path, video: Video | None = None) -> ClickSession:
    work = ClickAndTrack(
        squares() if video is None else video,
        ColourSegmenter(),
        prompter=ImagePrompter(ColourNetwork()),
        folder=folder / "work",
    )
    ticks = iter(range(10_000))
    return ClickSession(
        work, export_folder=folder / "export", largest=(128, 192), clock=lambda: next(ticks) * 0.5
    )


def click(session: ClickSession, place: tuple[int, int], *, left: bool = True) -> None:
    session.press(*place, left=left)
    if left:
        session.release(*place)


def play_on(session: ClickSession) -> None:
    for _ in range(100):
        if not session.tick():
            return
    raise AssertionError("it plays for ever")


def facts(session: ClickSession) -> str:
    return " | ".join(fact.text for fact in session.facts())


def test_click_space_and_the_video_is_tracked(tmp_path: Path) -> None:
    session = opened(tmp_path)
    assert facts(session) == "frame 0 / 7 | object 1 (new) | paused"
    click(session, FIRST)
    assert facts(session) == "frame 0 / 7 | object 1 (new) | score 0.90, Enter accepts | paused"
    session.key("space")
    session.tick()
    assert facts(session) == "frame 1 / 7 | object 1 | confidence 0.80 | tracking, 2.0 frames/s"
    play_on(session)
    assert (session.frame, session.playing, session.message) == (7, False, "the end of the video")
    for frame in range(8):
        assert torch.equal(session.work.labels(frame), square_labels(frame, objects=1))


def test_right_clicks_take_away_and_a_drag_is_a_box(tmp_path: Path) -> None:
    session = opened(tmp_path)
    session.press(4, 2)
    session.move(80, 118)
    assert session.picture()[:, 2, 40].tolist() == list(drawing.AMBER)  # the box while it is drawn
    session.release(80, 118)
    draft = session.work.draft
    assert draft is not None and torch.equal(draft.mask, square_labels(0) > 0)
    click(session, SECOND, left=False)
    assert torch.equal(session.work.draft.mask, square_labels(0) == 1)
    session.key("u")
    assert torch.equal(session.work.draft.mask, square_labels(0) > 0)
    session.key("escape")
    assert session.work.draft is None


def test_space_pauses_and_goes_on_and_then_shows_what_is_tracked(tmp_path: Path) -> None:
    session = opened(tmp_path)
    click(session, FIRST)
    session.key("space")
    session.tick()
    session.tick()
    session.key("space")
    assert (session.frame, session.playing) == (2, False) and not session.tick()
    session.key("space")
    play_on(session)
    steps = len(session.work.segmenter.prompts)
    assert steps == 8  # the pause cost nothing
    session.key("home")
    session.key("space")
    session.tick()
    assert "showing" in facts(session)
    assert session.frame == 1 and len(session.work.segmenter.prompts) == steps


def test_objects_are_added_chosen_corrected_and_removed(tmp_path: Path) -> None:
    session = opened(tmp_path)
    click(session, FIRST)
    session.key("n")
    assert (session.identity, session.message) == (None, "click on object 2")
    click(session, SECOND)
    session.key("enter")
    assert session.work.objects == (1, 2) and session.identity == 2
    session.key("tab")
    assert session.identity == 1
    session.key("2")
    session.key("space")
    play_on(session)
    assert torch.equal(session.work.labels(7), square_labels(7))
    session.key("r")
    assert session.work.objects == (1,) and session.identity == 1
    session.key("u")
    assert session.work.objects == (1, 2)
    session.key("5")
    assert session.failed and session.message == "there is no object 5; there are: 1, 2"


def test_a_correction_is_tracked_both_ways(tmp_path: Path) -> None:
    session = opened(tmp_path)
    click(session, FIRST)
    session.key("space")
    play_on(session)
    for _ in range(3):
        session.key("left")
    assert session.frame == 4
    session.key("n")
    click(session, (54, 82))
    session.key("space")
    assert "tracking" in facts(session)  # not showing: something new was said here
    play_on(session)
    assert torch.equal(session.work.labels(7), square_labels(7))
    session.key("home")
    for _ in range(4):
        session.key("right")
    session.key("b")
    play_on(session)
    assert session.frame == 0 and session.message == "the beginning of the video"
    assert torch.equal(session.work.labels(1), square_labels(1))


def test_a_step_forward_tracks_one_frame_where_nothing_is_known(tmp_path: Path) -> None:
    session = opened(tmp_path)
    session.key("right")
    assert session.frame == 1 and session.work.known_frames == ()
    session.key("left")
    click(session, FIRST)
    session.key("enter")
    session.key("right")
    assert session.work.known_frames == (0, 1)
    session.key("a")
    session.key("t")
    play_on(session)
    assert not session.work.labels(5).any()


def test_the_timeline_is_clicked_to_go_somewhere(tmp_path: Path) -> None:
    session = opened(tmp_path)
    session.press(100, 128 + 5)
    assert session.frame == 4
    session.press(100, 128 + 30)  # the facts: nothing
    assert session.frame == 4


def test_the_picture_has_frame_timeline_facts_and_help(tmp_path: Path) -> None:
    session = opened(tmp_path)
    click(session, FIRST)
    picture = session.picture()
    assert picture.dtype == torch.uint8 and picture.shape[2] == 192
    assert picture.shape[1] == 128 + drawing.TIMELINE + 2 * drawing.LINE + 6
    assert picture[:, 22, 22].tolist() == list(drawing.GREEN)  # the click
    assert picture[:, 128 + 4, 2].tolist() == [255, 255, 255]  # now
    session.key("h")
    darker = session.picture()
    assert int(darker[:, 28, 20].sum()) < int(picture[:, 28, 20].sum()) / 3  # the object behind the panel
    assert int((darker[:, :128] > 200).all(dim=0).sum()) > 100  # letters
    session.key("h")
    assert torch.equal(session.picture(), picture)


def test_frames_are_shown_as_large_as_they_fit() -> None:
    assert drawing.view_size((720, 1280), (720, 1280)) == (720, 1280)
    assert drawing.view_size((1080, 1920), (720, 1280)) == (720, 1280)
    assert drawing.view_size((480, 854), (720, 1280)) == (480, 854)
    assert drawing.view_size((100, 200), (720, 1280)) == (600, 1200)
    assert [drawing.frame_at(x, 8, 192) for x in (-5, 0, 23, 24, 191, 500)] == [0, 0, 0, 1, 7, 7]
    assert drawing.timeline(50, 100_000, known=[5], said=[99_999], now=0).shape == (3, 14, 50)


def test_an_export_is_labels_a_video_and_a_report(tmp_path: Path) -> None:
    session = opened(tmp_path)
    session.key("e")
    assert session.failed and "nothing to export" in session.message
    click(session, FIRST)
    session.key("space")
    play_on(session)
    session.key("e")
    assert not session.failed and session.message.startswith("8 frames exported")
    file = tmp_path / "export" / "labels" / "squares" / "00003.png"
    assert torch.equal(read_labels(file), square_labels(3, objects=1))
    assert torch.equal(embedded_palette(file), davis_palette())
    with VideoReader(tmp_path / "export" / "squares.mp4") as reader:
        assert (reader.size, reader.frame_count) == ((32, 48), 8)
    assert (tmp_path / "export" / "tracks.json").is_file()


def test_what_goes_wrong_is_said_and_the_session_goes_on(tmp_path: Path) -> None:
    session = opened(tmp_path)
    for key, message in [
        ("enter", "no mask to accept"),
        ("t", "nothing is known in frame 0"),
        ("left", "frame -1 was asked for"),
        ("tab", "there is no object yet"),
        ("r", "there is no object 1"),
        ("a", "there is no object 1"),
    ]:
        session.key(key)
        assert session.failed and message in session.message, key
    click(session, (160, 8))  # on nothing
    session.key("enter")
    assert session.failed and "is empty" in session.message
    session.key("escape")
    click(session, FIRST)
    session.key("space")
    play_on(session)
    assert not session.failed
    session.key("right")
    assert session.failed and session.message == "frame 7 is the last one"
    session.key("q")
    assert session.done


def test_a_video_that_breaks_pauses_with_what_is_wrong(tmp_path: Path) -> None:
    session = opened(tmp_path, Broken())
    click(session, FIRST)
    session.key("space")
    play_on(session)
    assert session.failed and session.message == "frame 4 is truncated" and session.frame == 3
    session.key("left")
    assert session.frame == 2 and not session.failed


def test_a_camera_plays_until_it_ends_and_is_gone_back_to(tmp_path: Path) -> None:
    session = opened(tmp_path, Live(6))
    assert facts(session).startswith("frame 0 / 0+")
    click(session, FIRST)
    session.key("space")
    play_on(session)
    assert session.frame == 5 and facts(session).startswith("frame 5 / 5 |")
    session.key("left")
    assert session.frame == 4
    assert not session.work.frames.live


def test_a_camera_is_watched_until_there_is_something_to_click_on(tmp_path: Path) -> None:
    session = opened(tmp_path, Live(6))
    session.key("space")
    session.tick()
    session.tick()
    assert facts(session) == "frame 2 / 2+ | object 1 (new) | showing"
    session.key("space")
    click(session, (30, 22))
    session.key("space")
    play_on(session)
    assert session.work.known_frames == (2, 3, 4, 5)
    session.key("home")
    session.key("space")
    play_on(session)  # from where nothing is known to the end, without tracking anew
    assert (session.frame, session.work.known_frames) == (5, (2, 3, 4, 5))


def test_a_session_that_goes_on_corrects_its_last_object(tmp_path: Path) -> None:
    session = opened(tmp_path)
    click(session, FIRST)
    session.key("enter")
    again = opened(tmp_path)
    assert again.identity == 1 and facts(again) == "frame 0 / 7 | object 1 | confidence 1.00 | paused"


def test_large_frames_are_clicked_where_they_are_shown(tmp_path: Path) -> None:
    image = torch.zeros(1, 3, 256, 384, dtype=torch.uint8)
    image[:, 0, 100:120, 200:220] = 200
    session = opened(tmp_path, clip_video(Clip("large", image)))
    assert session.size == (128, 192)
    click(session, (105, 55))
    assert int(session.work.draft.mask.sum()) == 400
    assert session.work.draft.points == ((211.0, 111.0, True),)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (65361, "left"),
        (2555904, "right"),
        (ord(","), "left"),
        (13, "enter"),
        (ord("H"), "h"),
        (ord("3"), "3"),
        (0x100075, "u"),
        (65364, ""),
        (65505, ""),
        (0, ""),
    ],
)
def test_keys_are_known_by_name_on_every_system(code: int, name: str) -> None:
    assert key_name(code) == name


def test_without_a_screen_the_window_says_so(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ValueError, match="there is no screen"):
        run_window(opened(tmp_path))
