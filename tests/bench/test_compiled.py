"""What is counted of a compiled loss. The compiler itself does not run: it would take minutes."""

import re
from functools import partial

import pytest
import torch

from detloss.bench import compiled
from detloss.bench.cases import TIMED
from detloss.bench.compiled import NOT_GENERATED, compile_case, compile_cases, compiled_table

CPU = torch.device("cpu")


def test_the_loss_of_a_case_is_compiled_forward_and_backward(monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    found = compile_case(TIMED["giou-1000"](CPU, 0.01), CPU)
    assert len(graphs) == 1
    assert found.first_seconds > 0
    assert found.milliseconds > 0
    assert found.eager > 0


def test_a_case_without_a_loss_is_refused():
    with pytest.raises(ValueError, match="expected a case with a loss, got max_iou matching"):
        compile_case(TIMED["match-10"](CPU, 0.01), CPU)


def test_calls_that_the_compiler_left_to_pytorch_are_told_from_its_own():
    code = """
        buf1 = torch.ops.aten.topk.default(buf0, 9)
        extern_kernels.mm(buf1, buf2, out=buf3)
        aten = torch.ops.aten
        inductor_ops = torch.ops.inductor
        cpp_fused_add_0(buf3, buf4)
    """
    assert len(re.findall(NOT_GENERATED, code)) == 2


def test_the_second_process_finds_the_cache_of_the_first(monkeypatch):
    caches = []

    def in_fresh_process(task, name, *setting, compiler_cache=None):
        if task == "describe":
            return {"title": name, "has_loss": name != "match"}
        caches.append(compiler_cache)
        numbers = {"first_seconds": 9.0, "kernels": 3, "operators": 0}
        return numbers | {"milliseconds": 1.0, "eager": 2.0}

    monkeypatch.setattr(compiled, "in_fresh_process", in_fresh_process)
    found = compile_cases(["giou", "match", "criterion"], CPU)
    assert [result.name for result in found] == ["giou", "criterion"]
    first, second, third, fourth = caches
    assert first == second
    assert third == fourth != first
    assert compiled_table(found, "here").row_count == 2
