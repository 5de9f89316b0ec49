{#- Each lane owns RN weight rows and RM rows of x, all in registers; no workgroup memory, no barriers.
    With SHARE > 0 the lanes of a subgroup of exactly that size load x once for all of them and broadcast it, which is
    what makes a device fast that pays for every lane's load (software rasterisers). -#}
@compute @workgroup_size({{ LANES }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let rows = rows_of(group.y);
    if (rows.count == 0u) {
        return;
    }
    let head = group.z;
    let column = group.x * {{ LANES * RN }}u + lane;
{{ outputs_in_registers(LANES) }}
    for (var k0 = 0u; k0 < P.k; k0 += {{ STEP }}u) {
{% for i in range(RM) if SHARE %}
        let own{{ i }} = load_x(x{{ i }}, k0 + 4u * lane);
{% endfor %}
{% for p in range(MATRICES) %}{% for j in range(RN) if SCALED == "block" %}
        let scale{{ p }}_{{ j }} = scale_at(base{{ p }}_{{ j }}, k0);
{% endfor %}{% endfor %}
{% for c in range(STEP // CHUNK) %}
        {
{% for p in range(MATRICES) %}{% for j in range(RN) %}
            let chunk{{ p }}_{{ j }} = w[w{{ p }}_{{ j }} + k0 / {{ CHUNK }}u + {{ c }}u];
{% endfor %}{% endfor %}
{% for q in range(CHUNK // 4) %}{% set at = c * CHUNK // 4 + q %}
            {
{% for p in range(MATRICES) %}{% for j in range(RN) %}
                let v{{ p }}_{{ j }} = {{ weights_of(p, j, q, at) }};
{% endfor %}{% endfor %}
{% for i in range(RM) %}
                let x{{ i }}q = {% if SHARE %}subgroupBroadcast(own{{ i }}, {{ at }}u){% else %}load_x(x{{ i }}, k0 + {{ 4 * at }}u){% endif %};
{% for p in range(MATRICES) %}{% for j in range(RN) %}
                sum{{ p }}_{{ i }}_{{ j }} += dot(x{{ i }}q, v{{ p }}_{{ j }});
{% endfor %}{% endfor %}
{% endfor %}
            }
{% endfor %}
        }
{% endfor %}
    }
{% for j in range(RN) %}
    if (column + {{ j * LANES }}u < P.n) {
{% if SCALED == "row" %}{% for p in range(MATRICES) %}
        let scale{{ p }} = scale_at(base{{ p }}_{{ j }}, 0u);
{% endfor %}{% endif %}
{% for i in range(RM) %}
        if ({{ i }}u < rows.count) {
            y[y_base(rows, {{ i }}u, head) + column + {{ j * LANES }}u] =
{% if GATED %}                silu(sum0_{{ i }}_{{ j }}{% if SCALED == "row" %} * scale0{% endif %}) * (sum1_{{ i }}_{{ j }}{% if SCALED == "row" %} * scale1{% endif %});
{% else %}                sum0_{{ i }}_{{ j }}{% if SCALED == "row" %} * scale0{% endif %};
{% endif %}
        }
{% endfor %}
    }
{% endfor %}
}
