"""Learn, teach and build medical deep learning in notebooks. Worlds are imported when they are named."""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "cli", "datasets", "doctor", "errors", "extras", "figures", "files", "imaging", "learning", "models", "signals",
        "stages", "tour", "widgets",
    ],
)
