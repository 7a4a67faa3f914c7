"""Makes the fixtures of LorryTextTests with the reference libraries.

    pip install tokenizers jinja2
    python generate.py

Trains a small tokenizer of each family's kind on made-up text, writes its tokenizer.json and what
the `tokenizers` library makes of some texts, and renders small templates with jinja2 as transformers
sets it up. Everything is seeded, but another version of `tokenizers` may train other merges.
"""

import json
import os
import random

from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

HERE = os.path.dirname(os.path.abspath(__file__))
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
ORDERED = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t)?"
           r"|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+")


def corpus():
    rng = random.Random(7)
    syllables = ["lo", "ry", "ka", "the", "an", "er", "ing", "to", "é", "ü", "mo", "s", "日", "本", "привет", "st"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(300)]
    lines = []
    for _ in range(600):
        line = " ".join(rng.choices(words, k=rng.randint(3, 12)))
        lines.append(line.capitalize() + rng.choice([".", "!", "?\n", " 42", "  x = 10\n", ", don't"]))
    return lines


def texts(added):
    rng = random.Random(11)
    fixed = [
        "", " ", "  ", "a", "Lorry", " the lorry", "the  lorry   is\there\n\n now\r\n", "don't WE'LL it's",
        "1234567 3.14", "héllo e\u0301 naïve ﬁ Ⅷ ½", "日本語 привет 🙂👩\u200d👧", "\u200b\u00a0\u3000x\u0085y",
        "\x00\x01\x7f", "a" * 70, " " * 33 + "x", "!!!???...---", "▁under▁score ▁", "<0x0A> <unk> <s>",
        "가각힣\u1100\u1161\u11a8 \uac00\u11a8", "\U00012345\ue000",
    ]
    pieces = added + ["the", " lorry", "Ka", "123", "\n", "  ", "é", "日", "🙂", "!?", "_", "'s", "\t", "е"]
    return fixed + ["".join(rng.choices(pieces, k=rng.randint(1, 12))) for _ in range(60)]


def byte_level(size=500, special=(), **model):
    tok = Tokenizer(models.BPE(**model))
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=list(special),
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    return tok, trainer


def gpt2():
    tok, trainer = byte_level(special=["<|endoftext|>"])
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    tok.train_from_iterator(corpus(), trainer)
    tok.add_tokens([AddedToken("lorry!", lstrip=True), AddedToken("ka", single_word=True)])
    return tok


def llama3():
    tok, trainer = byte_level(ignore_merges=True)
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(corpus(), trainer)
    tok.add_special_tokens(["<|begin|>", "<|end|>"])
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin|> $A", pair="<|begin|> $A $B",
                                      special_tokens=[("<|begin|>", tok.token_to_id("<|begin|>"))])])
    return tok


def qwen2():
    tok, trainer = byte_level()
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(corpus(), trainer)
    tok.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tok.add_tokens([AddedToken("<think>", normalized=False)])
    return tok


def smollm2():
    tok, trainer = byte_level(special=["<|im_start|>", "<|im_end|>"])
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(corpus(), trainer)
    return tok


def ordered_case():
    """A pattern with Ruby's interval quantifier, and normalized added tokens of spaces."""
    tok, trainer = byte_level()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(ORDERED), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(corpus(), trainer)
    tok.add_tokens([AddedToken(" " * n, normalized=True) for n in (2, 3, 4)])
    tok.add_special_tokens([AddedToken("<|pad|>", rstrip=True, normalized=False)])
    return tok


def sentencepiece(fuse=True):
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuse, byte_fallback=True))
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, show_progress=False, limit_alphabet=40,
                                  special_tokens=["<unk>", "<s>", "</s>"] + bytes_)
    return tok, trainer


def without_byte_tokens(tok):
    """Leaves the byte tokens to the model alone, as the real files do."""
    data = json.loads(tok.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if not t["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(data))


def strip_decoder():
    return decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                              decoders.Strip(" ", 1, 0)])


def llama2():
    tok, trainer = sentencepiece()
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tok.train_from_iterator(corpus(), trainer)
    tok.pre_tokenizer = None
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.decoder = strip_decoder()
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    tok = without_byte_tokens(tok)
    data = json.loads(tok.to_str())
    data["pre_tokenizer"] = None
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    return Tokenizer.from_str(json.dumps(data)), data


def metaspace():
    tok, trainer = sentencepiece(fuse=False)
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    tok.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    tok.train_from_iterator(corpus(), trainer)
    return without_byte_tokens(tok)


def gemma():
    tok, trainer = sentencepiece()
    tok.normalizer = normalizers.Replace(" ", "▁")
    tok.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_previous")
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tok.train_from_iterator(corpus(), trainer)
    return without_byte_tokens(tok)


def words():
    """The parts that models seldom use: affixes, folding, punctuation, no byte fallback."""
    tok = Tokenizer(models.BPE(unk_token="[UNK]", continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    tok.normalizer = normalizers.Sequence([
        normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(),
        normalizers.Strip(), normalizers.Replace(Regex(r"\s+"), " ")])
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.Whitespace()])
    tok.decoder = decoders.BPEDecoder("</w>")
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=400, show_progress=False, special_tokens=["[UNK]", "[CLS]", "[SEP]"],
        continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    tok.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return tok


def tokenizer_fixture(name, built):
    tok, data = built if isinstance(built, tuple) else (built, None)
    with open(f"{HERE}/{name}.tokenizer.json", "w", encoding="utf-8") as file:
        json.dump(data or json.loads(tok.to_str()), file, ensure_ascii=False, separators=(",", ":"))
    rng = random.Random(13)
    rows, decoded = [], []
    for text in texts([t.content for t in tok.get_added_tokens_decoder().values()]):
        rows.append({"text": text, "ids": tok.encode(text, add_special_tokens=False).ids,
                     "special": tok.encode(text).ids})
    size = tok.get_vocab_size()
    for _ in range(60):
        ids = [rng.randrange(size) for _ in range(rng.randint(0, 14))]
        if rng.random() < 0.5:
            ids = rng.choice(rows)["special"][:20]
        decoded.append({"ids": ids, "text": tok.decode(ids, skip_special_tokens=False),
                        "skipped": tok.decode(ids, skip_special_tokens=True)})
    with open(f"{HERE}/{name}.golden.json", "w", encoding="utf-8") as file:
        json.dump({"vocabularySize": size, "rows": rows, "decoded": decoded}, file, ensure_ascii=False, indent=0)


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return CallBlock(self.call_method("support"), [], [], body).set_lineno(line)

    def support(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


def template_fixture():
    with open(f"{HERE}/templates.json", encoding="utf-8") as file:
        data = json.load(file)
    goldens = []
    for source in data["templates"]:
        try:
            goldens.append({"source": source, "text": environment().from_string(source).render(**data["context"])})
        except Exception as error:
            goldens.append({"source": source, "error": f"{type(error).__name__}: {error}"})
    with open(f"{HERE}/templates.golden.json", "w", encoding="utf-8") as file:
        json.dump({"context": data["context"], "cases": goldens}, file, ensure_ascii=False, indent=0)


if __name__ == "__main__":
    for family in [gpt2, llama3, qwen2, smollm2, ordered_case, llama2, metaspace, gemma, words]:
        tokenizer_fixture(family.__name__, family())
    template_fixture()
