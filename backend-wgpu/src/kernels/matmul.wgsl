{#- What every matrix product has in common: y = x Wᵀ over slabs of stacked matrices. Needs weights.wgsl before it. -#}
struct Params {
    // Rows of x; unused when rows come in tiles.
    m: u32,
    // Outputs of this dispatch, and inputs.
    n: u32,
    k: u32,
    // Elements between rows, between heads (workgroup z), and before the first.
    x_row: u32,
    x_head: u32,
    y_row: u32,
    y_head: u32,
    y_first: u32,
    // vec4<u32> of a weight row; weight rows between heads, and before the first.
    w_row: u32,
    w_head: u32,
    w_first: u32,
    // Weight rows and scales of one matrix of the stack.
    matrix_rows: u32,
    matrix_scales: u32,
    // Scales of one row of scales, and inputs per scale.
    scale_row: u32,
    scale_group: u32,
    // Experts this slab holds.
    first_expert: u32,
    num_experts: u32,
    top_k: u32,
}
{% set X = "vec4<f32>" if VEC else "f32" %}
@group(0) @binding(0) var<storage, read> x: array<{{ X }}>;
@group(0) @binding(1) var<storage, read> w: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<f32>;
{% if ROWS == "dense" %}
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> P: Params;
{% else %}
// Element 0: number of tiles. Then per tile: expert, first sorted row, rows.
@group(0) @binding(3) var<storage, read> tiles: array<vec4<u32>>;
// Which (token, choice) pair each sorted row is.
@group(0) @binding(4) var<storage, read> pairs: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform> P: Params;
{% endif %}

// Inputs k to k + 3 of a row that starts at `base`, zero past the end.
fn load_x(base: u32, k: u32) -> vec4<f32> {
{% if VEC %}
    return select(vec4<f32>(), x[(base + min(k, P.k - 4u)) / 4u], k < P.k);
{% else %}
    let last = base + P.k - 1u;
    let at = vec4<u32>(base + k) + vec4<u32>(0u, 1u, 2u, 3u);
    let value = vec4<f32>(x[min(at.x, last)], x[min(at.y, last)], x[min(at.z, last)], x[min(at.w, last)]);
    return select(vec4<f32>(), value, at <= vec4<u32>(last));
{% endif %}
}

// Where the scales of weight row `row` of matrix `matrix` begin.
fn scale_base(matrix: u32, row: u32) -> u32 {
{% if FORMAT == "fp8" %}
    return matrix * P.matrix_scales + row / 128u * P.scale_row;
{% elif FORMAT == "int4" %}
    return matrix * P.matrix_scales + row * P.scale_row;
{% else %}
    return matrix * P.matrix_scales + row;
{% endif %}
}

// The scale of inputs k to k + 3 of a row whose scales begin at `base`.
fn scale_at(base: u32, k: u32) -> f32 {
{% if FORMAT == "fp8" %}
    return scales[base + min(k, P.k - 1u) / 128u];
{% elif FORMAT == "int4" %}
    return scales[base + min(k, P.k - 1u) / P.scale_group];
{% elif FORMAT == "int8" %}
    return scales[base];
{% else %}
    return 1.0;
{% endif %}
}

fn silu(v: f32) -> f32 {
    return v / (1.0 + exp(-v));
}

// The rows of x a workgroup works on.
struct Rows {
    first: u32,
    count: u32,
    expert: u32,
}

// `count` is 0 for a workgroup that has nothing to do.
fn rows_of(tile: u32) -> Rows {
{% if ROWS == "dense" %}
    let first = tile * {{ RM }}u;
    return Rows(first, min({{ RM }}u, max(P.m, first) - first), 0u);
{% else %}
    if (tile >= tiles[0].x) {
        return Rows(0u, 0u, 0u);
    }
    let entry = tiles[1u + tile];
    if (entry.x < P.first_expert || entry.x >= P.first_expert + P.num_experts) {
        return Rows(0u, 0u, 0u);
    }
    return Rows(entry.y, entry.z, entry.x - P.first_expert);
{% endif %}
}

// Where row `index` of `rows` begins in x; rows past the last repeat it.
fn x_base(rows: Rows, index: u32, head: u32) -> u32 {
    let row = rows.first + min(index, rows.count - 1u);
{% if ROWS == "gather" %}
    return pairs[row] / P.top_k * P.x_row;
{% else %}
    return row * P.x_row + head * P.x_head;
{% endif %}
}

fn y_base(rows: Rows, index: u32, head: u32) -> u32 {
    return (rows.first + index) * P.y_row + head * P.y_head + P.y_first;
}

{% set MATRICES = 2 if GATED else 1 %}
// Matrix of the stack: with two, gate and up follow each other.
fn matrix_of(rows: Rows, part: u32) -> u32 {
    return rows.expert * {{ MATRICES }}u + part;
}

{#- For cuts whose lanes hold RN outputs of RM rows in registers, the outputs `stride` columns apart: where weights, scales
    and inputs begin, and the sums. -#}
{%- macro outputs_in_registers(stride) %}
{% for p in range(MATRICES) %}{% for j in range(RN) %}
    let row{{ p }}_{{ j }} = P.w_first + head * P.w_head + min(column + {{ j * stride }}u, P.n - 1u);
    let w{{ p }}_{{ j }} = (matrix_of(rows, {{ p }}u) * P.matrix_rows + row{{ p }}_{{ j }}) * P.w_row;
    let base{{ p }}_{{ j }} = scale_base(matrix_of(rows, {{ p }}u), row{{ p }}_{{ j }});
{% endfor %}{% endfor %}
{% for i in range(RM) %}
    let x{{ i }} = x_base(rows, {{ i }}u, head);
{% endfor %}
{% for p in range(MATRICES) %}{% for i in range(RM) %}{% for j in range(RN) %}
    var sum{{ p }}_{{ i }}_{{ j }} = 0.0;
{% endfor %}{% endfor %}{% endfor %}
{%- endmacro %}

{#- Those cuts' four inputs of weight row `j` of matrix `p`: quad `q` of its chunk, at k0 + 4 `at`. -#}
{%- macro weights_of(p, j, q, at) -%}
{{ quad("chunk" ~ p ~ "_" ~ j, q) }}
{%- if SCALED == "block" %} * scale{{ p }}_{{ j }}
{%- elif SCALED == "quad" %} * scale_at(base{{ p }}_{{ j }}, k0 + {{ 4 * at }}u)
{%- endif %}
{%- endmacro %}
