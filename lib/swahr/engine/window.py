"""A window that shows images, by Tk, which comes with Python: OpenCV's headless build has none."""

from __future__ import annotations

from typing import Any

import cv2

from swahr.data.images import Image
from swahr.engine.image_sources import InferenceError

SCREEN_SHARE = 0.8  # of the screen's sides that an image may fill
END_KEYS = ("q", "Q", "Escape")
NEXT_KEYS = ("space", "Return", "Right")


class Window:
    """A window until the end of the `with` block. open: False once the user has closed it, or has
    pressed q or Escape. Raises InferenceError where there is no display.
    """

    def __init__(self, title: str) -> None:
        try:
            import tkinter
        except ImportError:
            raise InferenceError(
                "--show: this Python has no Tk to open a window with (Debian: apt install "
                "python3-tk)"
            ) from None
        try:
            self._root: Any = tkinter.Tk()
        except tkinter.TclError as error:
            raise InferenceError(f"--show: there is no display ({error})") from None
        self.open = True
        self._next = False
        self._photo: Any = None
        self._make_photo = tkinter.PhotoImage
        self._root.title(title)
        self._label = tkinter.Label(self._root)
        self._label.pack()
        self._root.protocol("WM_DELETE_WINDOW", self._close)
        for key in END_KEYS:
            self._root.bind(f"<KeyPress-{key}>", lambda event: self._close())
        for key in NEXT_KEYS:
            self._root.bind(f"<KeyPress-{key}>", lambda event: self._go_on())

    def __enter__(self) -> Window:
        return self

    def show(self, image: Image, *, wait: bool = False) -> None:
        """Show an image (H, W, 3) uint8 RGB, smaller if it is larger than the screen.

        wait: until the user presses space, Return, or closes the window.
        """
        if not self.open:
            return
        photo = self._make_photo(data=_ppm(self._fitted(image)), format="PPM")
        self._label.configure(image=photo)
        self._photo = photo  # Tk does not keep it
        self._next = False
        self._root.update()
        while wait and self.open and not self._next:
            self._root.update()
            if self.open:
                self._root.after(10)

    def __exit__(self, *error: object) -> None:
        if self.open:
            self._close()

    def _fitted(self, image: Image) -> Image:
        height, width = image.shape[:2]
        limits = self._root.winfo_screenwidth() / width, self._root.winfo_screenheight() / height
        zoom = SCREEN_SHARE * min(limits)
        if zoom >= 1:
            return image
        size = max(1, round(width * zoom)), max(1, round(height * zoom))
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]

    def _go_on(self) -> None:
        self._next = True

    def _close(self) -> None:
        self.open = False
        self._root.destroy()


def _ppm(image: Image) -> bytes:
    height, width = image.shape[:2]
    return b"P6 %d %d 255 " % (width, height) + image.tobytes()
