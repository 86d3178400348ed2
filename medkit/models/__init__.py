"""Networks in plain torch, one to a file; they know no patient. Every name is loaded when it is first used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "blocks": ["check_pictures", "conv_block", "count_macs", "count_parameters", "draw_flow", "evaluating"],
        "classifier": ["SmallClassifier"],
        "unet": ["UNet"],
        "double_unet": ["ASPP", "DoubleUNet", "SqueezeExcite", "load_vgg19"],
        "named": ["NamedClassifier", "NamedUNet", "named", "trained_weights"],
        "autoencoder": ["ConvAutoencoder"],
        "row_lstm": ["RowLSTMAutoencoder"],
        "slice_conv_lstm": ["SliceConvLSTM"],
        "beat_net": ["BeatNet", "ResidualBlock", "check_signals", "signal_settings"],
        "multi_head": ["MultiHeadCNN"],
        "cnn_lstm": ["CNNLSTM"],
    },
)
