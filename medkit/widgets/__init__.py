"""Things to move: viewers for images and signals on core ipywidgets. Every name is loaded when it is first used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "viewer": [
            "Cut", "ImageViewer", "SeriesBrowser", "SliceViewer", "browse_series", "cut_plane", "draw_cut", "frame_png", "live_text",
            "radio_strip", "series_options", "slice_count", "slice_png", "slice_text", "small_png", "view_image", "view_volume",
            "viewer_strip",
        ],
        "trace": ["Trace", "TraceViewer", "lay_out", "trace_png", "trace_strip", "trace_text", "view_recording"],
    },
)
