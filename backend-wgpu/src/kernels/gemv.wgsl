{#- Few rows of x: a workgroup per RN outputs, its lanes along the inputs, so that a subgroup reads one weight row in
    consecutive vec4<u32>; the partial sums meet in a reduction at the end. Needs reduce.wgsl before it. -#}
@compute @workgroup_size({{ LANES }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32{{ sub_arguments() }}) {
    let rows = rows_of(group.y);
    if (rows.count == 0u) {
        return;
    }
    let head = group.z;
    let column = group.x * {{ RN }}u;
{{ outputs_in_registers(1) }}
    for (var c = lane; c * {{ CHUNK }}u < P.k; c += {{ LANES }}u) {
        let k0 = c * {{ CHUNK }}u;
{% for p in range(MATRICES) %}{% for j in range(RN) %}
        let chunk{{ p }}_{{ j }} = w[w{{ p }}_{{ j }} + c];
{% if SCALED == "block" %}
        let scale{{ p }}_{{ j }} = scale_at(base{{ p }}_{{ j }}, k0);
{% endif %}
{% endfor %}{% endfor %}
{% for q in range(CHUNK // 4) %}
        {
{% for p in range(MATRICES) %}{% for j in range(RN) %}
            let v{{ p }}_{{ j }} = {{ weights_of(p, j, q, q) }};
{% endfor %}{% endfor %}
{% for i in range(RM) %}
            let x{{ i }}q = load_x(x{{ i }}, k0 + {{ 4 * q }}u);
{% for p in range(MATRICES) %}{% for j in range(RN) %}
            sum{{ p }}_{{ i }}_{{ j }} += dot(x{{ i }}q, v{{ p }}_{{ j }});
{% endfor %}{% endfor %}
{% endfor %}
        }
{% endfor %}
    }
{% for i in range(RM) %}{% for j in range(RN) %}
    {
{% for p in range(MATRICES) %}
        let total{{ p }} = reduce_sum(sum{{ p }}_{{ i }}_{{ j }}, lane, {{ SUB }});
{% endfor %}
        if (lane == 0u && {{ i }}u < rows.count && column + {{ j }}u < P.n) {
{% if SCALED == "row" %}{% for p in range(MATRICES) %}
            let scale{{ p }} = scale_at(base{{ p }}_{{ j }}, 0u);
{% endfor %}{% endif %}
            y[y_base(rows, {{ i }}u, head) + column + {{ j }}u] =
{% if GATED %}                silu(total0{% if SCALED == "row" %} * scale0{% endif %}) * (total1{% if SCALED == "row" %} * scale1{% endif %});
{% else %}                total0{% if SCALED == "row" %} * scale0{% endif %};
{% endif %}
        }
    }
{% endfor %}{% endfor %}
}
