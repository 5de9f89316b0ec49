{#- Many rows of x: RM rows times 64 outputs per workgroup of 256, staged through workgroup memory 16 inputs at a time;
    each lane owns RM / 16 rows times 4 outputs. -#}
{% set TM = RM // 16 %}
var<workgroup> x_tile: array<f32, {{ 16 * RM }}>;
{% for p in range(MATRICES) %}
var<workgroup> w_tile{{ p }}: array<f32, {{ 16 * 64 }}>;
{% endfor %}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let rows = rows_of(group.y);
    if (rows.count == 0u) {
        return;
    }
    let head = group.z;
    let column = group.x * 64u;
    // Loading: 4 lanes per row, 4 inputs each. Multiplying: 16 x 16 lanes.
    let load_row = lane / 4u;
    let load_k = lane % 4u * 4u;
    let my_row = lane / 16u;
    let my_column = lane % 16u;
    let w_at = P.w_first + head * P.w_head + min(column + load_row, P.n - 1u);
{% for p in range(MATRICES) %}
    let w{{ p }} = (matrix_of(rows, {{ p }}u) * P.matrix_rows + w_at) * P.w_row;
    let base{{ p }} = scale_base(matrix_of(rows, {{ p }}u), w_at);
{% endfor %}
    let x_row = x_base(rows, load_row, head);
{% for p in range(MATRICES) %}{% for i in range(TM) %}
    var sum{{ p }}_{{ i }} = vec4<f32>();
{% endfor %}{% endfor %}
    for (var k0 = 0u; k0 < P.k; k0 += 16u) {
        let k = k0 + load_k;
        workgroupBarrier();
{% if RM < 64 %}
        if (load_row < {{ RM }}u) {
{% else %}
        {
{% endif %}
            let value = load_x(x_row, k);
{% for e in range(4) %}
            x_tile[(load_k + {{ e }}u) * {{ RM }}u + load_row] = value[{{ e }}];
{% endfor %}
        }
{% for p in range(MATRICES) %}
        {
            let chunk = w[w{{ p }} + k / {{ CHUNK }}u];
            let value = {{ quad_at("chunk", "k") }} * scale_at(base{{ p }}, k);
{% for e in range(4) %}
            w_tile{{ p }}[(load_k + {{ e }}u) * 64u + load_row] = value[{{ e }}];
{% endfor %}
        }
{% endfor %}
        workgroupBarrier();
        for (var j = 0u; j < 16u; j++) {
{% for p in range(MATRICES) %}
            let b{{ p }} = vec4<f32>({% for e in range(4) %}w_tile{{ p }}[j * 64u + my_column + {{ 16 * e }}u]{{ ", " if not loop.last }}{% endfor %});
{% endfor %}
{% for i in range(TM) %}
            let a{{ i }} = x_tile[j * {{ RM }}u + my_row + {{ 16 * i }}u];
{% for p in range(MATRICES) %}
            sum{{ p }}_{{ i }} += a{{ i }} * b{{ p }};
{% endfor %}{% endfor %}
        }
    }
{% for i in range(TM) %}
    if (my_row + {{ 16 * i }}u < rows.count) {
        let out = y_base(rows, my_row + {{ 16 * i }}u, head) + column + my_column;
{% for e in range(4) %}
        if (column + my_column + {{ 16 * e }}u < P.n) {
            y[out + {{ 16 * e }}u] = {% if GATED %}silu(sum0_{{ i }}[{{ e }}]) * sum1_{{ i }}[{{ e }}]{% else %}sum0_{{ i }}[{{ e }}]{% endif %};
        }
{% endfor %}
    }
{% endfor %}
}
