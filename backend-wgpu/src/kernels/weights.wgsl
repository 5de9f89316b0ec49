{#- Packed weights. A row of `k` weights takes `P.w_row` vec4<u32> and is padded with zeros to a multiple of 32 weights,
    so that every format reads whole steps. `quad` turns part of a vec4<u32> into four weights, scales not applied. -#}
{%- set CHUNK = {"f32": 4, "bf16": 8, "fp8": 16, "int8": 16, "int4": 32}[FORMAT] -%}
{% if FORMAT == "fp8" %}
// e4m3 to f32 by integer arithmetic: exact, subnormals included, and independent of the device's flush-to-zero mode.
fn fp8x4(word: u32) -> vec4<f32> {
    let byte = vec4<u32>(word, word >> 8u, word >> 16u, word >> 24u);
    let magnitude = bitcast<vec4<f32>>(((byte & vec4<u32>(0x7fu)) << vec4<u32>(20u)) + vec4<u32>(120u << 23u));
    // Exponent field 0: the implicit one is not there.
    let value = select(magnitude, 2.0 * magnitude - 0.015625, (byte & vec4<u32>(0x78u)) == vec4<u32>(0u));
    return select(value, -value, (byte & vec4<u32>(0x80u)) != vec4<u32>(0u));
}
{% elif FORMAT == "int8" %}
fn int8x4(word: u32) -> vec4<f32> {
    return vec4<f32>(vec4<i32>(vec4<u32>(word << 24u, word << 16u, word << 8u, word)) >> vec4<u32>(24u));
}
{% elif FORMAT == "bf16" %}
fn bf16x4(low: u32, high: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(low << 16u, low & 0xffff0000u, high << 16u, high & 0xffff0000u));
}
{% elif FORMAT == "int4" %}
// Four nibbles from bit `shift` on, stored as value + 8.
fn int4x4(word: u32, shift: u32) -> vec4<f32> {
    let nibble = (vec4<u32>(word) >> (vec4<u32>(0u, 4u, 8u, 12u) + vec4<u32>(shift))) & vec4<u32>(0xfu);
    return vec4<f32>(vec4<i32>(nibble) - vec4<i32>(8));
}
{% endif %}
{%- macro quad(chunk, index) -%}
{%- if FORMAT == "f32" -%} bitcast<vec4<f32>>({{ chunk }})
{%- elif FORMAT == "bf16" -%} bf16x4({{ chunk }}[{{ 2 * index }}], {{ chunk }}[{{ 2 * index + 1 }}])
{%- elif FORMAT == "fp8" -%} fp8x4({{ chunk }}[{{ index }}])
{%- elif FORMAT == "int8" -%} int8x4({{ chunk }}[{{ index }}])
{%- elif FORMAT == "int4" -%} int4x4({{ chunk }}[{{ index // 2 }}], {{ 16 * (index % 2) }}u)
{%- endif -%}
{%- endmacro %}
{#- Weights k to k + 3 of a row, of which `chunk` is the vec4<u32> that holds them. -#}
{%- macro quad_at(chunk, k) -%}
{%- if FORMAT == "f32" -%} bitcast<vec4<f32>>({{ chunk }})
{%- elif FORMAT == "bf16" -%} select(bf16x4({{ chunk }}.z, {{ chunk }}.w), bf16x4({{ chunk }}.x, {{ chunk }}.y), ({{ k }} & 4u) == 0u)
{%- elif FORMAT == "fp8" -%} fp8x4({{ chunk }}[({{ k }} / 4u) % 4u])
{%- elif FORMAT == "int8" -%} int8x4({{ chunk }}[({{ k }} / 4u) % 4u])
{%- elif FORMAT == "int4" -%} int4x4({{ chunk }}[({{ k }} / 8u) % 4u], ({{ k }} & 4u) * 4u)
{%- endif -%}
{%- endmacro %}
{#- The scale of inputs k to k + 3 of weight row `row`, where `P` says how scales lie. -#}
{%- macro scale_of(row, k) -%}
{%- if FORMAT == "fp8" -%} scales[{{ row }} / 128u * P.scale_row + {{ k }} / 128u]
{%- elif FORMAT == "int8" -%} scales[{{ row }}]
{%- elif FORMAT == "int4" -%} scales[{{ row }} * P.scale_row + {{ k }} / P.scale_group]
{%- else -%} 1.0
{%- endif -%}
{%- endmacro %}
