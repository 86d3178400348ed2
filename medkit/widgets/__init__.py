"""Things to move: viewers for images and signals on core ipywidgets. Every name is loaded when it is first used."""

import lazy_loader

from .. import _keep_functions

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
        "filters": ["FILTERS", "FilterChart", "FilterPair", "compare_filters", "filter_strip", "measure_lag", "pair_filters", "pair_png", "pair_text", "scroll_on"],
        "peak_editor": ["MarkScore", "PeakEditor", "doubtful_gaps", "edit_peaks", "jump_on", "peak_strip", "rates_png", "score_marks", "score_text"],
        "idea_card": ["IdeaCard", "card_texts", "edit_idea", "idea_png", "idea_strip", "missing_figures", "read_texts"],
        "assay_view": [
            "AssayView", "Flip", "assay_figures", "assay_png", "assay_strip", "find_flips", "flip_points", "lights_html", "move_figures",
            "view_assay",
        ],
        "board": [
            "COLUMNS", "IdeaBoard", "Tile", "board_html", "board_strip", "board_tiles", "funnel_png", "open_tile", "refresh_board", "show_board",
        ],
        "grid_builder": [
            "GridBuilder", "TrainingCount", "build_grid", "count_trainings", "grid_strip", "time_training", "training_words", "trainings_png",
        ],
        "leaderboard": [
            "VIEWS", "LeaderboardView", "board_factors", "board_words", "leaderboard_png", "leaderboard_strip", "narrow_board", "sorted_rows",
            "view_leaderboard",
        ],
        "signal_failures": [
            "SignalFailures", "SignalWindow", "browse_signal_failures", "browse_window_failures", "signal_failure_strip", "window_png",
            "window_text",
        ],
        "cell_order": [
            "CellOrder", "Page", "TinyCell", "cell_order_strip", "compare_pages", "fresh_page", "page_png", "page_text", "press_cells",
            "replay_page",
        ],
        "quiz": ["QuizCard", "quiz", "quiz_verdict"],
        "doctor_panel": [
            "DoctorPanel", "answer_error", "doctor_strip", "look_again", "report_html", "report_words", "view_doctor",
        ],
        "follow_up": ["NextIdea", "TagShare", "offer_next_idea", "tag_rows", "tag_share"],
    },
)

_keep_functions(__name__, "quiz")
