# mypy: disable-error-code="import-untyped"
"""What compiled loops and the Python that prepares their calls agree on: fields of contexts, lengths of vectors, tiles' sizes.
Nothing here imports Numba, nor does a call whose stages are all in the cache."""

from __future__ import annotations

import platform

import llvmlite.binding
import numpy as np

FEATURES = llvmlite.binding.get_host_cpu_features() if platform.machine() in ("x86_64", "AMD64") else {}
ARM = platform.machine() in ("aarch64", "arm64")
VECTOR_BYTES = 64 if FEATURES.get("avx512f") else 32 if FEATURES.get("avx") else 16
FUSED = bool(ARM or FEATURES.get("fma"))  # without the instruction, llvm.fma is a call into libm
ROWS = 12 if ARM or VECTOR_BYTES == 64 else 6  # of pixels_tiles; 12 of 32 registers, 6 of 16, times two
SUMS, CHANNELS = (24, 8) if VECTOR_BYTES == 64 else (18, 6) if ARM else (12, 6)  # of channels_tiles: registers, output channels


SPAN = tuple(min(8, SUMS // channels) for channels in range(1, CHANNELS + 1))  # vectors of a tile of 1, 2, ... of these
# of broadcast, pixels of a tile of 1, 2, ... vectors
PIXELS = (12, 12, 8, 6) if ARM or VECTOR_BYTES == 64 else (8, 6, 4)
SURPLUS = max(*SPAN, *PIXELS)  # entries of a table that a tile may read beyond the last
GEMM, DIRECT, BROADCAST = 0, 1, 2
HALVES = VECTOR_BYTES == 64  # whether half a vector takes less: shorter ones do not, where 512 bits pass in two halves they do
HALF_BYTES = VECTOR_BYTES // 2 if HALVES else 0  # of channels for which one is enough
# elements so far apart are copied by whole vectors, where some lanes of these can be read
LEAST_HOP, MOST_HOP = 2, 4 if VECTOR_BYTES > 16 else 0

# ---- of a convolution

_INTEGERS = (
    # what differs between calls: addresses of the context itself and of the arrays (0: none), how many parts there are, and the
    # first of this round of them; whether something was not finite that only a careful call puts right
    "self x weights bias out residual scratch parts first spoilt "
    # addresses of the stages; strides in bytes
    "fill tile finish activate algorithm relu past "
    "xn xc xd xh xw on oc od oh ow rn rc rd rh rw "
    # sizes: channels per group, products per output, output, convolution stride, taps and dilation of the first axis
    "batch groups inputs outputs depth planes rows columns stride_d stride_h stride_w kernel_d dilation_d "
    # the padded coordinates: index maps per axis, where the input lies on the last; `step`: only every step-th is read;
    # whether those beyond are zeros
    "map_d map_h map_w low_w size_w step_h step_w zeros "
    # blocks: how many along rows, columns, output channels; the latter in `chunks`; products per pass over the pixels
    "blocks_h blocks_w blocks chunks pass_depth "
    # the slab: its strides in bytes, columns de-interleaved into `phases`; what a block of one output pixel spans
    "slab slab_c slab_d slab_h slab_w slab_phase phases span_h span_w grow_h grow_w "
    # tables and scratch: offsets within the scratch of a part; byte steps between output pixels in the slab or input
    "taps pixel_h pixel_w scratch_bytes sums lines pixels places line_pitch "
    # register tiles by their sizes (see blocking.py)
    "tile_of "
    # output channels of a group, as they are packed; what blocks are shares of: so many units of so many channels
    "packed units unit "
    # whether sums go to the output from the registers, bytes from those of a pixel to the next; entries of the table of pixels
    # that go through all blocks together
    "straight place_w fit "
    # winograd: stages that transform; per axis outputs and inputs of a tile; tiles of all images, and along the axes
    "in_h in_w out_h out_w repair m_h m_w n_h n_w tiles tiles_h tiles_w "
    # components of the kernel, vectors of all their input channels, lanes of each; columns in the table of one component;
    # their distance in the input, and of outputs; products; weights of a pair of vectors of output channels
    "components vectors share columns_in hop_w dilation_h dilation_w products terms "
    # tables, see winograd.py
    "component_at plane_at row_at column_at runs column_of left_w out_row rows_left out_column columns_left kinds depths "
    "taps_of pixel_at transformed "
    # offsets in the scratch of a part: V and M and their distance from one product to the next, inputs, half transformed,
    # outputs and those of the next vector, the flag that something is not finite, a tile's window; tiles that there is room for
    "v v_plane m m_plane inputs_at half_at outputs_at outputs_plane flag window most window_rows window_columns "
    # fft: steps of a tile, and how many parts share each (0: none); tiles along depth; points that are transformed along the
    # axes, places of a tile along them; taps of the other axes
    "steps sharing tiles_d points_d points_h points_w places_h places_w kernel_h kernel_w "
    # layout of areas and spectra, see fft_stages.py; where the latter are kept, their distances; spans of output channels
    "partner apart column_blocks strip_bytes plane_bytes area_bytes part_bytes rows_bytes spectrum_bytes folded row_chunks "
    "stored spectra_block spectra_channel spans keep_w shift_w most_outputs "
    # the stage of transforms; tables, see fft.py: programs, turns, inputs and outputs by place, what inputs are multiplied by
    "transform there_d there_h there_w back_d back_h back_w pairs turns turns_bytes step_at depth_at depth_out row_out "
    "strip_out of_d of_h of_w factor "
    # offsets in a tile's memory, a part's, packed weights
    "board_bytes desk_bytes spectra next own product buffer plain odd "
    # the parts of a round, pieces of the range of each; words behind the context that count them, how far apart (shares.py)
    "sharers pieces shares shares_apart").split()
CONTEXT = np.dtype([(name, np.int64) for name in _INTEGERS] + [("parameter", np.float64)])
SPOILT = _INTEGERS.index("spoilt")  # its number
PIECES = 8  # of a part's range
SHARES, MOST_SHARERS = 240, 256  # the number of the first word for them; how many parts there may be

# ---- of pooling

_OF_A_POOL = (
    # addresses of the arrays (0: none), their strides in bytes; how many parts there are
    "first result indices source fn fc fd fh fw rn rc rd rh rw jn jc jd jh jw sn sc sd sh sw parts scratch scratch_bytes "
    # sizes: output, input; distance of the taps; channels gone through together, or pixels of a row (`by_rows`)
    "batch channels inside depth rows columns input_d input_h input_w step_d step_h step_w "
    # addresses of the tables, and of marks for what is read at all
    "first_d first_h first_w count_d count_h count_w divisor_d divisor_h divisor_w read_d read_h read_w "
    "by_rows largest override powers").split()
POOL_CONTEXT = np.dtype([(name, np.int64) for name in _OF_A_POOL] + [("scale", np.float64), ("norm", np.float64)])

# ---- fft

INVERSE = 8  # added to the radix of a stage of the inverse transform
ENTRY = 64  # bytes of a stage in a program: radix (0: the end), which arrays, offset, bytes of all sequences, of m; twiddles
FROM_SECOND, TO_SECOND = 1, 2  # which arrays: a stage reads the first and writes the first, but for these
CHUNK = 32  # rows that are loaded, and finished, at a time
FINE = 16  # columns of a folded axis that share a coarse turn
OF_A_TILE = 8  # of each tile along an axis: padded coordinate of its first output, outputs, number of the first of them; along
# the last one, the first of the inputs that lie side by side, the last and which it is, whether there are no others, strips

# ---- depthwise

_REGISTERS = 32 if VECTOR_BYTES == 64 else 16
MASKED, HALF = 1, 2  # kinds of tiles; halves of vectors are masked
MOST_OF_THREE = 5 if _REGISTERS == 32 else 0  # kernels with stride 2 whose last three columns share loads, taps in registers
OF_A_STRETCH = 24  # of columns that tiles of a kind compute: the kind, the first, blocks, then masks


def rows_of(kernel: int, stride: int) -> list[int]:
    """How many a tile may have: its sums, as many columns of taps as share loads, and the inputs are in registers."""
    return [rows for rows in (8, 7, 4, 2, 1) if rows + stride * (kernel + 1) <= _REGISTERS or rows <= 2]
