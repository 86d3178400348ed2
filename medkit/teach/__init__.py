"""Lessons that prove themselves: exercises, the learner's verbs, and the tools of an instructor. Names are loaded at first use."""

import lazy_loader

from .. import _keep_functions

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "exercise": ["Bank", "Cell", "Exercise", "Lesson", "Option", "Quiz", "bank_text", "read_bank", "read_cells", "read_lesson",
                     "read_lessons"],
        "live": ["Progress", "Shown", "Verdict", "catch_up", "check", "hint", "join", "judge", "note", "progress", "solution"],
        "build": ["Built", "build", "copy_of", "lay_out"],
        "verify": ["Verification", "build_verified", "find_leaks", "verify", "verify_all"],
        "nbgrader": ["export_nbgrader"],
    },
)

_keep_functions(__name__, "build", "verify")
