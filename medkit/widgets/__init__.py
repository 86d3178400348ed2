"""Things to move: viewers for images and signals on core ipywidgets. Every name is loaded when it is first used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "viewer": [
            "Cut", "ImageViewer", "SeriesBrowser", "SliceViewer", "browse_series", "cut_plane", "draw_cut", "frame_png", "live_text",
            "radio_strip", "series_options", "slice_count", "slice_png", "slice_text", "small_png", "view_image", "view_volume",
            "still_bundle", "viewer_strip",
        ],
        "marks": ["Edit", "Marks", "add_beat", "fingerprint", "move_beat", "nearest_beat", "read_marks", "remove_beat", "save_marks", "undo"],
        "trace": ["Trace", "TraceViewer", "lay_out", "press", "show_at", "trace_png", "trace_strip", "trace_text", "view_recording"],
        "overlay": [
            "OVERLAP", "OverlapViewer", "overlap_labels", "overlap_mask", "overlap_strip", "overlap_text", "view_overlap", "worst_slices",
        ],
        "noise": ["NoiseDial", "noise_grid", "noise_png", "noise_strip", "noise_text", "turn_noise"],
        "gallery": ["FailureGallery", "browse_failures", "failure_png", "failure_strip"],
        "threshold": ["ThresholdBoard", "move_threshold", "threshold_png", "threshold_strip", "threshold_text"],
        "strip": ["Strip", "StripChart", "chart_strip", "pause", "play", "restart", "step", "strip_png", "strip_text", "tick", "watch_recording"],
    },
)
