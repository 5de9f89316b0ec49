{#- Reductions over a workgroup of LANES, a power of two; every lane gets the result. SUBGROUPS takes the first steps
    within subgroups of whatever size. -#}
var<workgroup> partial: array<f32, {{ LANES }}>;
{%- macro sub_arguments() -%}
{%- if SUBGROUPS %}, @builtin(subgroup_invocation_id) sub_lane: u32, @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) num_subgroups: u32{% endif -%}
{%- endmacro %}
{%- set SUB = "vec3<u32>(sub_lane, subgroup, num_subgroups)" if SUBGROUPS else "vec3<u32>()" %}
{% for name, combine, subgroup_op in [("reduce_sum", "a + b", "subgroupAdd"), ("reduce_max", "max(a, b)", "subgroupMax")] %}
fn {{ name }}_of(a: f32, b: f32) -> f32 {
    return {{ combine }};
}

fn {{ name }}(value: f32, lane: u32, sub: vec3<u32>) -> f32 {
{% if SUBGROUPS %}
    let inner = {{ subgroup_op }}(value);
    workgroupBarrier();
    if (sub.x == 0u) {
        partial[sub.y] = inner;
    }
    workgroupBarrier();
    var total = partial[0];
    for (var s = 1u; s < sub.z; s++) {
        total = {{ name }}_of(total, partial[s]);
    }
    return total;
{% else %}
    workgroupBarrier();
    partial[lane] = value;
    workgroupBarrier();
{% for half in [128, 64, 32, 16, 8, 4, 2, 1] if half < LANES %}
    if (lane < {{ half }}u) {
        partial[lane] = {{ name }}_of(partial[lane], partial[lane + {{ half }}u]);
    }
    workgroupBarrier();
{% endfor %}
    return partial[0];
{% endif %}
}
{% endfor %}
