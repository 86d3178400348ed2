"""Signals: read, simulate, clean and measure ballistocardiograms, and say what cannot be measured."""

import sys
from types import ModuleType

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "show": ["mask_to_spans", "shade_spans", "show_trace", "spans_to_mask", "thin_trace"],
        "recording": ["Recording", "read_recording"],
        "simulate": ["Truth", "simulate_bcg", "simulate_rr", "write_bcg_sample"],
        "clean": ["Cleaned", "band_pass", "clean"],
        "quality": ["LOWEST_QUALITY", "Rhythm", "show_rhythm", "track_rhythm"],
        "beats": ["Beats", "find_beats"],
        "respiration": ["Respiration", "respiration"],
        "vitals": ["Vitals", "VitalsRow", "measure_vitals"],
        "evaluate": ["Agreement", "BeatMatch", "CoverageCurve", "HeartRateScore", "bland_altman", "coverage_error_curve",
                     "match_beats", "reference_rate", "score_heart_rate"],
    },
)


class _Package(ModuleType):
    "A package in which `clean` and `respiration` stay the functions, whichever of function and module is imported first."

    def __setattr__(self, name, value):
        twin = name in ("clean", "respiration") and isinstance(value, ModuleType)
        super().__setattr__(name, getattr(value, name) if twin else value)


sys.modules[__name__].__class__ = _Package
