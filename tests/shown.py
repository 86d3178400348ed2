"""What tests ask of what is shown: the parts of a box, the pixels of a picture, the elements of a page."""

import io
from html.parser import HTMLParser

import ipywidgets as widgets
import numpy as np
from PIL import Image

HOSTILE = "<script>window.struck = true</script><img src=x onerror='window.struck = true'>"


def every_widget(box):
    yield box
    for child in getattr(box, "children", ()):
        yield from every_widget(child)


def html_of(box) -> str:
    "Everything that a box shows as HTML."
    return "".join(part.value for part in every_widget(box) if isinstance(part, widgets.HTML))


def pixels(png) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))


class Elements(HTMLParser):
    "The elements that a browser would make of a page: `found` has the name and the attributes of each."

    def __init__(self, page: str):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def harmless(page: str, *forbidden: str) -> bool:
    "True if no element is a script or one of those forbidden, and none has a handler such as `onerror`."
    return not any(tag in ("script", *forbidden) or any(name.startswith("on") for name in attributes)
                   for tag, attributes in Elements(page).found)
