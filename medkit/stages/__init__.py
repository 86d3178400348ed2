"""A project's stages, from idea to gate: records, rules and decisions. Every name is loaded when it is first used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "store": ["Fault", "Record", "Store"],
        "mirror": ["mirror_runs"],
        "idea": ["Deployment", "Feed", "Idea", "Input", "measure_macs_per_s", "signal_input", "study_input"],
        "criteria": ["Assay", "Check", "assay", "may_use", "patients_needed", "subjects_needed"],
        "decision": ["Decision", "decide", "evidence_of", "read_decisions", "show_funnel"],
        "probe": ["KillRule", "Probe", "ProbeResult", "ProbeRow", "run_probe", "write_plan"],
        "literature": ["Literature", "Note", "Paper", "read_literature", "write_literature"],
        "worked": ["Answer", "Card", "Judged", "Judgement", "judge", "read_cards", "worked_ideas"],
        "deck": ["Deck", "Discussion", "discuss", "present", "read_discussions"],
        "experiment": ["Cell", "Estimate", "Grid", "Leaderboard", "Run", "leaderboard", "read_runs", "split_hash"],
        "comparison": ["Comparison", "Opening", "compare", "open_test"],
        "board": ["HeatMap", "heat_map", "rank_stability", "show_ranks"],
        "path": ["Step", "Walk", "walk"],
        "follow": ["next_idea"],
        "gate": ["Gate", "GateResult", "GateRow", "Variant", "check_gates"],
    },
)
