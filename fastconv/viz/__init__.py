"""Pictures of what a convolutional network sees (`pip install 'fastconv[viz]'`).

Every function returns a matplotlib Figure, to be shown in a notebook or saved (`figure.savefig("x.png")`); `slide` writes an
animated GIF and returns its path. Images are (C, H, W), (1, C, H, W) or (H, W); models are those of `fastconv.nn`, and stay as
they are: in their mode, with their parameters, gradients and running statistics. The arrays behind the pictures are `..._map`,
`receptive_box`, `deconvolved`, `maximised`, `sliding` and `confusion_counts`, for which matplotlib is not needed.
"""

from __future__ import annotations

from .explained import deconvolution, grad_cam, receptive_field, responds_to, saliency
from .layers import activation_maps, filters
from .maps import Box, deconvolved, grad_cam_map, maximised, receptive_box, saliency_map
from .results import confusion_counts, confusion_matrix, loss_curves, misread
from .sliding import Step, slide, sliding

__all__ = [
    "Box", "Step", "activation_maps", "confusion_counts", "confusion_matrix", "deconvolution", "deconvolved", "filters",
    "grad_cam", "grad_cam_map", "loss_curves", "maximised", "misread", "receptive_box", "receptive_field", "responds_to",
    "saliency", "saliency_map", "slide", "sliding",
]
