"""Signals: read, simulate, clean and measure ballistocardiograms, and say what cannot be measured."""

import lazy_loader

from .. import _keep_functions

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "show": ["mask_to_spans", "shade_spans", "show_trace", "spans_to_mask", "thin_trace"],
        "recording": ["Recording"],
        "formats": ["read_edf", "read_hdf5", "read_wfdb"],
        "reading": ["read_recording"],
        "collections": ["Intervals", "LostBytes", "Night", "NightFiles", "find_lost_bytes", "list_li2024", "read_kansas", "read_li2024",
                        "read_li2024_rr", "read_paced_breathing", "read_pathology2025", "read_rhythm2025"],
        "align": ["Alignment", "align"],
        "labels": ["FAULTS", "Finding", "LabelAudit", "audit_labels"],
        "simulate": ["INTERFERENCE", "RHYTHMS", "Truth", "simulate_bcg", "simulate_interference", "simulate_rr", "write_bcg_sample"],
        "nights": ["STAGES", "LabelledNight", "simulate_night", "simulate_rhythm"],
        "clean": ["Cleaned", "band_pass", "clean"],
        "segments": ["window_starts"],
        "quality": ["LOWEST_QUALITY", "Rhythm", "show_rhythm", "track_rhythm"],
        "methods": ["METHODS", "bruser2013", "modwt", "modwt_smooth", "sadek2021", "shin2008"],
        "beats": ["Beats", "find_beats", "heart_rate"],
        "hrv": ["HRV_INDICES", "Hrv", "hrv"],
        "ecg": ["RPeaks", "find_r_peaks"],
        "motion": ["ActivityCounts", "SleepWake", "activity_counts", "sleep_wake"],
        "respiration": ["Respiration", "respiration"],
        "vitals": ["Vitals", "VitalsRow", "measure_vitals"],
        "stream": ["BcgStream"],
        "ward": ["WardReport", "measure_ward"],
        "evaluate": ["Agreement", "BeatMatch", "CoverageCurve", "HeartRateScore", "bland_altman", "coverage_error_curve",
                     "match_beats", "reference_rate", "score_heart_rate"],
        "features": ["FEATURES", "FeatureInfo", "Features", "Windows", "extract_features", "join_windows", "make_windows"],
        "pictures": ["Pictures", "RawWindows", "picture", "raw_windows"],
    },
)

_keep_functions(__name__, "align", "clean", "hrv", "respiration")
