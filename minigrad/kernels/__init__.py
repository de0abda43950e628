"""What several ops share: how kernels are compiled, cached and run on all threads, and the register tile.

| file | what |
|---|---|
| compile.py | the cache of compiled kernels, keyed by a hash of the sources; the line that says what is compiling |
| parallel.py | `@kernel`: a serial body over a range, run in pieces by all threads |
| team.py | those threads: the caller and its helpers |
| target.py | vector width and register count of the CPU that Numba compiles for |
| tile.py | the register tile: plain loops, and the same as LLVM vectors |
| taps.py | where a convolution's inputs lie: rows under kernel taps |
| gemm.py | the indirect matrix product: loops around the tile |
| weight_gradient.py | its weight gradient |
| matmul.py | matrix products of rows of channels, made of the two |
| winograd.py | 3x3 convolutions with a quarter of the products |
| transpose.py | a square of numbers transposed: packs weights for data gradients |
| plan.py | kernel calls recorded once and repeated without Python |
| windows.py | output sizes, padding and windows of convolutions and pools |
| elementwise.py | sums and masks over whole arrays |
| philox.py | the counter-based random generator |
"""
