#!/usr/bin/env bash
# Compares the declarations in backend-ascend/bindings/ with the headers of an installed CANN SDK: a C++ compiler is shown
# both, and a function that is declared in two ways is an error. Run it after `source set_env.sh`.
set -euo pipefail
cd "$(dirname "$0")/../backend-ascend/bindings"

if [ -z "${ASCEND_HOME_PATH:-}" ]; then
    echo "NOT RUN, no SDK: the declarations of backend-ascend (ASCEND_HOME_PATH is not set)"
    exit 0
fi

include=$ASCEND_HOME_PATH/include
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
    echo '#include <cstdint>'
    echo '#include "acl/acl.h"'
    echo '#include "aclnn/acl_meta.h"'
    echo '#include "hccl/hccl.h"'
} >"$work/sdk.h"

# An operator's header is named after it, in lower case with underscores; what an SDK lacks is said and not compared.
declared=$(grep -oE '^OPERATOR\(\w+' opapi.h | cut -d'(' -f2)
folders=("$include/aclnnop" "$include/aclnnop/level2")
num_compared=0
for operator in $declared; do
    function="${operator}GetWorkspaceSize"
    found=$(grep -lrE "\b$function\b" "${folders[@]}" --include='*.h' 2>/dev/null | head -1 || true)
    if [ -n "$found" ]; then
        echo "#include \"$found\"" >>"$work/sdk.h"
        num_compared=$((num_compared + 1))
    else
        echo "not in this SDK: $operator"
    fi
done

cat >"$work/check.cpp" <<'CHECK'
#include "sdk.h"
#define BATHYSPHERE_SDK_TYPES
#include "acl_rt.h"
#include "acl_later.h"
#include "capture.h"
#include "nnopbase.h"
#include "opapi.h"
#include "hccl.h"
CHECK
# The values of our enums, beside those of the SDK.
grep -oE '^ +(ACL|HCCL)_\w+ = [0-9]+' types.h | while read -r name _ value; do
    echo "static_assert(static_cast<int>($name) == $value, \"$name\");" >>"$work/check.cpp"
done
"${CXX:-g++}" -std=c++17 -fsyntax-only -Wno-deprecated-declarations -I "$work" -I . -I "$include" "$work/check.cpp"
echo "declarations of backend-ascend: $num_compared operators, the runtime and HCCL agree with $ASCEND_HOME_PATH"
