import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from rewards.problem import Problem
from rollouts.prompts import PromptConfig, Renderer, fitting

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if not thinking | default(true) %}"
    "<think></think>{% endif %}{% endif %}"
)
# DeepSeek-R1, arXiv 2501.12948 v2, Table 1, typed again.
R1_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves "
    "it. The assistant first thinks about the reasoning process in the mind and then provides the "
    "user with the answer. The reasoning process and answer are enclosed within <think> </think> "
    "and <answer> </answer> tags, respectively, i.e., <think> reasoning process here </think> "
    "<answer> answer here </answer>. User: %s. Assistant:"
)


def byte_tokenizer(chat_template=CHAT_TEMPLATE):
    """Id 0 begins a sequence; every byte-level character has an id of its own."""
    letters = ["<s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    core.add_special_tokens(["<s>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", chat_template=chat_template
    )


def problem(prompt="What is 3 + 5?", name="p"):
    return Problem(id=name, prompt=prompt, answer="8", source="sum")


def text(prompt="What is 3 + 5?", **config):
    return Renderer(tokenizer=byte_tokenizer(), config=PromptConfig(**config)).text(problem(prompt))


def ids(prompt="What is 3 + 5?", **config):
    return Renderer(tokenizer=byte_tokenizer(), config=PromptConfig(**config)).ids(problem(prompt))


def test_r1_zero_is_the_papers_text_and_ends_where_the_assistant_begins():
    rendered = text("What is 3 + 5?", template="r1_zero")
    assert rendered == R1_ZERO % "What is 3 + 5?"
    assert rendered.endswith("User: What is 3 + 5?. Assistant:")


def test_r1_zero_does_not_double_the_full_stop():
    assert text("Add 3 and 5.", template="r1_zero").endswith("User: Add 3 and 5. Assistant:")


@pytest.mark.parametrize(
    "question", ["{x}", "{", "}", "{{x}}", "{0}", "{question}", "\\boxed{8} and \\frac{1}{2}", "%s"]
)
@pytest.mark.parametrize("template", ["chat", "r1_zero", "plain"])
def test_braces_in_a_question_are_left_as_they_are(question, template):
    expected = {
        "chat": f"<|user|>{question}<|assistant|>",
        "r1_zero": R1_ZERO.replace("%s", question),
        "plain": question,
    }
    assert text(question, template=template) == expected[template]


def test_chat_takes_a_question_a_system_message_and_settings():
    assert text() == "<|user|>What is 3 + 5?<|assistant|>"
    assert text(system="Be brief.") == "<|system|>Be brief.<|user|>What is 3 + 5?<|assistant|>"
    assert text(chat_template_kwargs={"thinking": False}).endswith("<|assistant|><think></think>")


CONVERSATION = (
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "3 + 5?"},
)


def test_a_conversation_is_rendered_turn_by_turn():
    assert text(CONVERSATION) == "<|user|>Hello.<|assistant|>Yes?<|user|>3 + 5?<|assistant|>"
    assert text(CONVERSATION, template="plain") == "Hello.\nYes?\n3 + 5?"


@pytest.mark.parametrize("template", ["chat", "r1_zero", "plain"])
def test_the_prefill_comes_last(template):
    bare = text(template=template)
    assert text(template=template, prefill="<think>") == bare + "<think>"


@pytest.mark.parametrize(("template", "begins"), [("chat", 0), ("r1_zero", 1), ("plain", 1)])
def test_ids_are_the_texts_with_the_tokenizers_own_start_unless_it_is_a_chat(template, begins):
    found = ids(template=template, prefill="<think>")
    assert isinstance(found, tuple)
    assert found[:1].count(0) == found.count(0) == begins
    # One id a byte of ASCII.
    rendered = text(template=template, prefill="<think>")
    assert len(found) == begins + len(rendered)
    assert byte_tokenizer().decode(found[begins:]) == rendered


@pytest.mark.parametrize("missing", [None, ""])
def test_a_chat_without_template_is_refused(missing):
    renderer = Renderer(tokenizer=byte_tokenizer(missing), config=PromptConfig(template="chat"))
    with pytest.raises(ValueError, match=r"no chat template.*r1_zero or plain"):
        renderer.ids(problem())
    plain = Renderer(tokenizer=byte_tokenizer(missing), config=PromptConfig(template="plain"))
    assert len(plain.ids(problem("3 + 5"))) == 6


def test_fitting_keeps_what_is_short_enough_and_counts_the_rest():
    renderer = Renderer(tokenizer=byte_tokenizer(), config=PromptConfig(template="plain"))
    # One id each and one for the start: 4, 5, 6 and 4 of them.
    problems = [problem("a" * n, name=f"{i}") for i, n in enumerate((3, 4, 5, 3))]
    kept, num_left_out = fitting(problems, renderer.ids, 5)
    assert [p.id for p in kept] == ["0", "1", "3"]
    assert num_left_out == 1
    assert fitting(problems, renderer.ids, 3) == ([], 4)
    assert fitting([], renderer.ids, 3) == ([], 0)
