"""The window of --show, on a Tk that only notes what it is told."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from swahr.engine.image_sources import InferenceError
from swahr.engine.window import Window


class Tk:
    """A root window. keys: pressed one by one, each while the window waits for events."""

    keys: list[str] = []

    def __init__(self) -> None:
        self.bound: dict[str, Any] = {}
        self.pressed = list(self.keys)
        self.gone = False

    def title(self, text: str) -> None: ...

    def protocol(self, name: str, function: Any) -> None:
        self.bound[name] = lambda event: function()

    def bind(self, event: str, function: Any) -> None:
        self.bound[event] = function

    def update(self) -> None:
        assert not self.gone
        if self.pressed:
            self.bound[self.pressed.pop(0)](None)

    def after(self, milliseconds: int) -> None: ...

    def destroy(self) -> None:
        self.gone = True

    def winfo_screenwidth(self) -> int:
        return 1000

    def winfo_screenheight(self) -> int:
        return 500


class Label:
    def __init__(self, root: Tk) -> None:
        self.root = root

    def pack(self) -> None: ...

    def configure(self, image: bytes) -> None:
        shown.append(image)


shown: list[bytes] = []


@pytest.fixture
def tk(monkeypatch: pytest.MonkeyPatch) -> type[Tk]:
    def photo(data: bytes, format: str) -> bytes:
        assert format == "PPM"
        return data

    made = SimpleNamespace(Tk=Tk, Label=Label, PhotoImage=photo, TclError=RuntimeError)
    monkeypatch.setitem(sys.modules, "tkinter", made)
    monkeypatch.setattr(Tk, "keys", [])
    shown.clear()
    return Tk


IMAGE = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


def test_images_are_shown_as_they_are(tk: type[Tk]) -> None:
    with Window("title") as window:
        window.show(IMAGE)
        assert window.open
    assert shown == [b"P6 4 2 255 " + IMAGE.tobytes()] and not window.open


def test_images_larger_than_the_screen_are_made_smaller(tk: type[Tk]) -> None:
    with Window("title") as window:
        window.show(np.zeros((1000, 1000, 3), np.uint8))
    assert shown[0].startswith(b"P6 400 400 255 ")


@pytest.mark.parametrize("key", ["<KeyPress-q>", "<KeyPress-Escape>", "WM_DELETE_WINDOW"])
def test_the_user_can_end_it(tk: type[Tk], monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setattr(tk, "keys", [key])
    with Window("title") as window:
        window.show(IMAGE, wait=True)
        assert not window.open
        window.show(IMAGE)
    assert len(shown) == 1


def test_an_image_waits_for_a_key(tk: type[Tk], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tk, "keys", ["<KeyPress-space>", "<KeyPress-space>"])
    with Window("title") as window:
        window.show(IMAGE, wait=True)
        window.show(IMAGE, wait=True)
        assert window.open
    assert len(shown) == 2


def test_no_display_and_no_tk_are_one_line(tk: type[Tk], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Tk) -> None:
        raise RuntimeError("no display name")

    monkeypatch.setattr(tk, "__init__", fail)
    with pytest.raises(InferenceError, match=r"^--show: there is no display \(no display name\)$"):
        Window("title")
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(InferenceError, match="^--show: this Python has no Tk .*python3-tk"):
        Window("title")
