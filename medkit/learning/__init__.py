"""Learning from images: splits, loaders, training, scores with intervals. Every name is loaded when it is first used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "report": ["Metric", "Scores", "bootstrap_by_patient", "exact_bound"],
        "split": ["Split", "check_leakage", "patient_split"],
        "loaders": ["SliceDataset", "SliceLoader", "SliceLoaders", "read_cases", "slice_loaders"],
        "losses": ["DiceCrossEntropy", "dice_loss"],
        "metrics": ["DiceMetric", "ThresholdGuess", "auroc", "dice", "fit_threshold", "iou"],
        "learner": [
            "TrainingGuard", "classification_learner", "evaluate", "patient_scores", "predict", "segmentation_learner",
        ],
        "saving": ["ARCHITECTURES", "load_learner", "save_learner"],
        "compress": [
            "Benchmark", "OnnxNetwork", "agreement", "benchmark", "export_onnx", "open_model", "quantize", "quantized_share", "run_model",
        ],
    },
)
