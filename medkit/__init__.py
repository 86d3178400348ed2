"""Learn, teach and build medical deep learning in notebooks. Worlds are imported when they are named."""

import sys
from types import ModuleType

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "cli", "course", "datasets", "doctor", "errors", "extras", "figures", "files", "imaging", "learning", "models", "signals",
        "stages", "teach", "tour", "widgets",
    ],
)


def _keep_functions(package: str, *names: str) -> None:
    "Let each name of a package stay the function, whichever of function and module of that name is imported first."

    class Package(ModuleType):
        def __setattr__(self, name, value):
            super().__setattr__(name, getattr(value, name) if name in names and isinstance(value, ModuleType) else value)

    sys.modules[package].__class__ = Package
