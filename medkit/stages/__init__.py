"""A project's stages, from idea to gate: records, rules and decisions. Every name is loaded when it is first used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "store": ["Record", "Store"],
        "idea": [
            "Assay", "Check", "Decision", "Deployment", "Idea", "Input", "assay", "decide", "patients_needed",
            "read_decisions", "signal_input", "study_input",
        ],
        "experiment": ["Grid", "Leaderboard", "Run", "leaderboard", "read_runs", "split_hash"],
        "gate": ["Gate", "GateResult", "GateRow", "Variant", "check_gates"],
    },
)
