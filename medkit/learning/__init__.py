"""Learning from images and signals: splits, loaders, training, scores with intervals. Every name is loaded when it is first used."""

import lazy_loader

from .. import _keep_functions

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "report": ["ByPatient", "Metric", "Scores", "bootstrap_by_patient", "exact_bound"],
        "split": ["Split", "check_leakage", "patient_digest", "patient_folds", "patient_split"],
        "duplicates": ["Duplicate", "check_duplicates", "find_duplicates"],
        "cache": ["cached_arrays", "content_key"],
        "view": ["View", "neighbours"],
        "augment": ["Augment"],
        "crops": ["Crop", "cut_case"],
        "loaders": ["SliceCase", "SliceDataset", "SliceLoader", "SliceLoaders", "read_cases", "slice_loaders"],
        "windows": ["SIGNAL_SPACES", "SignalCase", "SignalDataset", "SignalLoader", "SignalLoaders", "SignalView", "WindowSpan", "read_nights",
                    "signal_cases", "signal_loaders", "split_nights"],
        "losses": ["DeepSupervision", "DenoisingLoss", "DiceCrossEntropy", "dice_loss"],
        "callbacks": ["AurocMetric", "EarlyStop", "PsnrMetric", "TrainingGuard"],
        "checkpoints": ["Checkpoints", "describe_run", "read_checkpoint", "write_checkpoint"],
        "hardest": ["show_top_losses", "top_losses"],
        "metrics": ["DiceMetric", "ThresholdGuess", "auroc", "dice", "fit_threshold", "iou"],
        "learner": ["Training", "classification_learner", "denoising_learner", "segmentation_learner", "signal_learner", "train"],
        "people": ["by_person", "window_scores"],
        "surface": ["average_surface_distance", "hd95", "surface_dice"],
        "probability": [
            "Calibration", "TwoByTwo", "average_precision", "brier_score", "calibration_error", "calibration_line", "choose_threshold",
            "count_calls", "fit_calibration", "predictive_values", "show_predictive_values", "show_ranking", "show_reliability",
            "wilson_interval",
        ],
        "fidelity": ["contrast_to_noise", "psnr", "ssim"],
        "lesions": ["LesionMatch", "froc_points", "lesion_rates", "match_lesions", "rates_by_size"],
        "scoring": ["Subgroups", "evaluate", "patient_scores", "patient_table", "person_scores", "predict", "subgroups"],
        "saving": ["ARCHITECTURES", "load_learner", "save_learner"],
        "failures": ["TAGS", "compare_tags", "failure_table", "show_tags"],
        "cases": [
            "CaseReport", "Diameter", "Field", "Ground", "Outliner", "TwoStage", "fit_outliner", "load_two_stage", "longest_diameter",
            "predict_case", "save_two_stage",
        ],
        "search": [
            "Choice", "Integers", "LogUniform", "Pruned", "ReportEpoch", "SearchResult", "Trial", "Uniform", "learner_trial", "read_search",
            "search",
        ],
        "restore": ["denoise"],
        "saliency": ["Explanation", "coarsest_layer", "explain", "sanity"],
        "baselines": ["Baseline", "Rule", "fit_baseline", "fit_bed_rule", "fit_feature_rule", "method_scores", "wrist_rule"],
        "trainer": ["SIGNAL_MODELS", "SignalTrainer"],
        "moments": ["WindowExplanation", "explain_window", "person_failures", "window_failures", "window_sanity"],
        "compress": [
            "Benchmark", "OnnxNetwork", "agreement", "benchmark", "export_onnx", "open_model", "quantize", "quantized_share", "run_model",
        ],
    },
)

_keep_functions(__name__, "search")
