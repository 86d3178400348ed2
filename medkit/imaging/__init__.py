"""Medical images: DICOM files, volumes, windows, and simulated patients. Every name is loaded when it is first used."""

import lazy_loader

from .. import _keep_functions

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "window": [
            "BONE", "BRAIN", "LIVER", "LUNG", "MEDIASTINUM", "PANCREAS", "PRESETS", "SOFT_TISSUE", "Window", "apply_window",
            "minmax_window", "resolve_window", "to_uint8",
        ],
        "show": [
            "colour_labels", "edge_letters", "hatch_labels", "label_colour", "label_texture", "show_picture", "thumbnail",
            "tile_pictures",
        ],
        "dicom": ["DicomImage", "read_image", "render_frame"],
        "headers": ["PERSONAL", "TECHNICAL", "read_headers", "write_headers"],
        "volume": [
            "Mask", "Volume", "align_to", "axial_affine", "check_same_frame", "cut_slice", "show_montage", "show_planes",
            "show_volume", "voxel_axis",
        ],
        "geometry": ["Fault", "find_faults", "positions_along", "series_affine", "slice_normal"],
        "series": ["FoundSeries", "list_series", "read_series", "write_series"],
        "nifti": ["MAX_NIFTI_BYTES", "read_nifti", "read_nifti_mask", "write_nifti"],
        "segmentation": ["read_segmentation"],
        "regrid": ["AIR_HU", "MAX_GRID_VOXELS", "crop", "label_box", "place", "resample", "uneven_faults"],
        "collections": [
            "Case", "Collection", "read_case_folder", "read_cptac_pda", "read_decathlon", "read_nih_pancreas", "read_nnunet",
        ],
        "anatomy": ["GLAND", "LABELS"],
        "lesions": ["LOOK_ALIKES", "Finding"],
        "noise": ["add_noise", "low_dose_sigma"],
        "phantom": ["Patient", "describe_abdomen", "simulate_abdomen", "simulate_cohort"],
        "deid": ["deidentify", "deidentify_file", "pseudonym", "read_key"],
        "audit": ["Leftover", "audit_deidentified"],
        "png": ["encode_png"],
        "convert": ["ConversionReport", "convert"],
        "share": ["deidentify_folder"],
    },
)

_keep_functions(__name__, "convert")
