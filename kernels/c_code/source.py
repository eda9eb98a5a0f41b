"""C source of a matrix multiply in fp32 for one register block, with GCC's vector extensions.

Loops and packing are those of Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, ACM TOMS 34
(2008), as BLIS orders them: B in blocks of depth x columns whose panels lie in order, A in blocks of rows x depth,
and inside them a block of C held in registers. The register block is fixed by the compiler; the other block sizes are
arguments, so tiles that share a register block share an object.
"""

from functools import cache
from importlib import resources


@cache
def source(rows: int, columns: int, width: int) -> str:
    """The C file.

    Args:
        rows: rows of C held in registers.
        columns: columns of C held in registers; a multiple of `width`.
        width: floats of one vector register.

    Raises:
        ValueError: `columns` is no multiple of `width`, or a size is not positive.
    """
    if min(rows, columns, width) < 1 or columns % width:
        raise ValueError(f"columns must be a positive multiple of {width}, got {rows} x {columns}")
    head = f"#define MR {rows}\n#define NR {columns}\n#define V {width}\n{_file('wait.c')}"
    parts = (
        _micro_kernel("packed", rows, columns // width, "a[{row}]", "MR"),
        _micro_kernel("direct", rows, columns // width, "a[{row} * row_stride]", "depth_stride"),
        _transpose(width),
    )
    return head + _file("driver.c").replace("/* GENERATED */", "\n".join(parts))


@cache
def pool_source() -> str:
    """The C file of the threads that share a multiply."""
    return _file("wait.c") + _file("pool.c")


def _file(name: str) -> str:
    return resources.files("towtank.kernels.c_code").joinpath(name).read_text("utf-8")


def _micro_kernel(name: str, rows: int, vectors: int, operand: str, step: str) -> str:
    """One block of C: each accumulator has a name of its own, so that it stays in a register."""
    cells = [(row, vector) for row in range(rows) for vector in range(vectors)]
    lines = [
        f"static void micro_{name}(long depth, const float *restrict a, long row_stride, long depth_stride,",
        "        const float *restrict b, float *restrict c, long c_stride, int first)",
        "{",
        *(f"    vector c{row}_{v} = {{0}};" for row, v in cells),
        *(
            f"    __builtin_prefetch(c + {row} * c_stride + {v * 16}, 1);"
            for row in range(rows)
            for v in range((vectors + 1) // 2)
        ),
        '    _Pragma("GCC unroll 4")',
        "    for (long p = 0; p < depth; p++) {",
        *(f"        vector b{v} = *(const vector *)(b + {v} * V);" for v in range(vectors)),
    ]
    for row in range(rows):
        lines.append(f"        float a{row} = {operand.format(row=row)};")
        lines += [f"        c{row}_{v} += a{row} * b{v};" for v in range(vectors)]
    lines += [f"        a += {step};", "        b += NR;", "    }", "    if (first) {"]
    lines += [f"        *(loose *)(c + {row} * c_stride + {v} * V) = c{row}_{v};" for row, v in cells]
    lines.append("    } else {")
    lines += [f"        *(loose *)(c + {row} * c_stride + {v} * V) += c{row}_{v};" for row, v in cells]
    lines += ["    }", "}"]
    return "\n".join(lines)


def _transpose(width: int) -> str:
    """V x V floats from rows to columns: log2 V rounds, each exchanges parts of pairs of rows (Eklundh, 1972)."""
    lines = ["static inline void transpose(vector *restrict r)", "{"]
    step = width // 2
    while step:
        low = [lane if not lane & step else lane - step + width for lane in range(width)]
        high = [lane + step if not lane & step else lane + width for lane in range(width)]
        for row in (row for row in range(width) if not row & step):
            lines.append(
                f"    {{ vector x = r[{row}], y = r[{row + step}];"
                f" r[{row}] = SHUFFLE(x, y, {', '.join(map(str, low))});"
                f" r[{row + step}] = SHUFFLE(x, y, {', '.join(map(str, high))}); }}"
            )
        step //= 2
    return "\n".join([*lines, "}"])
