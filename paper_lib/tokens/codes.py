"""A codec's tokens: what they are, what they cost to keep, what they hold. Notebook 22.

Of L3AC the six digits of each frame (finite scalar quantization, FSQ), side by side, none above
another. Of EnCodec its codebooks (residual vector quantization, RVQ), each for what those before it
left over. Both as integers (clips, codebooks, frames).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from l3ac.en_codec import EnCodec

from ..codec import l3ac, pretrained
from ..codec.encoder import Encoder, bake
from ..core import machine, parallel, paths, stages
from ..core.config import Profile
from ..core.errors import PaperError
from ..sound import audio
from ..sound.dataset import Dataset

RATE = audio.CODEC_RATE
CHUNK = 96  # clips a shard
WHOLE = 62  # bits: a frame that fits is kept as one number


@dataclass(frozen=True)
class Code:
    """What the tokens of a codec are."""

    sizes: tuple[int, ...]  # of each codebook: how many values a token of it has
    frame_rate: float  # frames a second

    @property
    def bits(self) -> np.ndarray:
        """(codebooks,) of each token, if all its values were as frequent."""
        return np.log2(self.sizes)

    @property
    def nominal(self) -> float:
        """Bits a second, by which a codec is called."""
        return float(self.bits.sum() * self.frame_rate)


@dataclass(frozen=True)
class Tokenizer:
    """A codec as two functions; sounds are at 16 kHz."""

    code: Code
    encode: Callable[[np.ndarray], np.ndarray]  # (samples,) -> (codebooks, frames) integers
    decode: Callable[[np.ndarray], np.ndarray]  # (codebooks, frames) -> (samples,)


def tokenizer(name: str, codec: str) -> Tokenizer:
    """The codec that a profile's `token_codec` names; of L3AC, with the weights of `codec`.

    Raises:
        PaperError: the weights cannot be had.
    """
    if name == "l3ac":
        return of_l3ac(l3ac.load(codec))
    from transformers import EncodecModel

    folder, _ = pretrained.fetch("encodec")
    bandwidth = float(name.removeprefix("encodec_"))
    return of_encodec(EncodecModel.from_pretrained(folder).eval(), bandwidth)


def version_of(name: str, codec: str) -> str:
    """Which weights `tokenizer` takes, without loading them."""
    return l3ac.weights_name(codec) if name == "l3ac" else pretrained.fetch("encodec")[1]


def of_l3ac(network: EnCodec) -> Tokenizer:
    """Digits of L3AC: the level at which each number of a frame stands."""
    vq = network.quantizer.vq
    code = Code(tuple(int(n) for n in vq.levels), RATE / network.mc.hop_length)
    embed = bake(Encoder(network)).eval()

    @torch.inference_mode()
    def encode(x: np.ndarray) -> np.ndarray:
        said = network.quantizer(embed(torch.from_numpy(x)[None]))[1]
        return said["level_indices"][0].T.numpy().astype(np.uint16)

    @torch.inference_mode()
    def decode(tokens: np.ndarray) -> np.ndarray:
        levels = torch.from_numpy(tokens.astype(np.float32)).T[None]
        features = network.quantizer.project_out(vq.inv_act(levels / (vq.levels - 1)))
        return network.decoder(network.en_decoder(features)).flatten().numpy()

    return Tokenizer(code, encode, decode)


def of_encodec(model, bandwidth: float) -> Tokenizer:
    """Codebooks of transformers' `EncodecModel` at so many kbit/s."""
    rate, sizes = model.config.sampling_rate, model.config.codebook_size
    books = model.quantizer.get_num_quantizers_for_bandwidth(bandwidth)

    @torch.inference_mode()
    def encode(x: np.ndarray) -> np.ndarray:
        heard = torch.from_numpy(audio.resample(x, RATE, rate).astype(np.float32))
        return model.encode(heard[None, None], bandwidth=bandwidth).audio_codes[0, 0].numpy()

    @torch.inference_mode()
    def decode(tokens: np.ndarray) -> np.ndarray:
        codes = torch.from_numpy(tokens.astype(np.int64))[None, None]
        back = model.decode(codes, [None]).audio_values.flatten().numpy()
        return audio.resample(back, rate, RATE).astype(np.float32)

    code = Code((sizes,) * books, model.config.frame_rate)
    return Tokenizer(code, encode, decode)


# --- packed into bits -----------------------------------------------------------------------------


def _fields(sizes: tuple[int, ...]) -> list[tuple[list[int], int]]:
    """Codebooks that are kept as one number, and its bits: a whole frame's, or each for itself."""
    whole = (math.prod(sizes) - 1).bit_length()
    if whole <= WHOLE:
        return [(list(range(len(sizes))), whole)]
    return [([i], (n - 1).bit_length()) for i, n in enumerate(sizes)]


def bits_a_frame(sizes: tuple[int, ...]) -> int:
    """Bits in which `packed` keeps a frame."""
    return sum(bits for _, bits in _fields(sizes))


def packed(tokens: np.ndarray, sizes: tuple[int, ...]) -> bytes:
    """(codebooks, frames) -> bytes, frame after frame, no bit between.

    The tokens of a frame are the digits of one number, where that fits 62 bits.
    """
    parts = []
    for members, bits in _fields(sizes):
        number = np.zeros(tokens.shape[1], np.uint64)
        for i in members:
            number = number * np.uint64(sizes[i]) + tokens[i].astype(np.uint64)
        parts.append(number[:, None] >> np.arange(bits, dtype=np.uint64) & np.uint64(1))
    return np.packbits(np.concatenate(parts, 1).astype(np.uint8)).tobytes()


def unpacked(content: bytes, sizes: tuple[int, ...], frames: int) -> np.ndarray:
    """What `packed` was given: (codebooks, frames) uint16."""
    width = bits_a_frame(sizes)
    if len(content) != -(-frames * width // 8):
        raise ValueError(f"{len(content)} bytes are not {frames} frames")
    bits = np.unpackbits(np.frombuffer(content, np.uint8), count=frames * width)
    table, start = bits.reshape(frames, width).astype(np.uint64), 0
    out = np.zeros((len(sizes), frames), np.uint16)
    for members, length in _fields(sizes):
        places = np.arange(length, dtype=np.uint64)
        number = (table[:, start : start + length] << places).sum(1, dtype=np.uint64)
        for i in reversed(members):
            number, digit = np.divmod(number, np.uint64(sizes[i]))
            out[i] = digit
        start += length
    return out


def write(path: Path, names: list[str], tokens: np.ndarray, code: Code) -> None:
    """A Parquet file: a row a clip, its name and its packed tokens; what they are in the schema."""
    about = {"sizes": ",".join(map(str, code.sizes)), "frame_rate": repr(code.frame_rate)}
    about["frames"] = str(tokens.shape[2])
    columns = {"name": names, "tokens": [packed(one, code.sizes) for one in tokens]}
    table = pa.table(columns, schema=pa.schema([("name", pa.string()), ("tokens", pa.binary())]))
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(table.replace_schema_metadata(about), path, **plain)


def read(path: Path) -> tuple[list[str], np.ndarray, Code]:
    """What `write` was given; tokens (clips, codebooks, frames) uint16."""
    try:
        table = pq.read_table(path)
        about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        code = Code(tuple(map(int, about["sizes"].split(","))), float(about["frame_rate"]))
        kept, frames = table["tokens"].to_pylist(), int(about["frames"])
        tokens = np.stack([unpacked(one, code.sizes, frames) for one in kept])
    except (OSError, ValueError, KeyError, AttributeError) as problem:
        raise PaperError(
            f"{path} is no file of tokens ({problem}): delete the folder {path.parent} and run "
            "the notebook again."
        ) from problem
    return table["name"].to_pylist(), tokens, code


# --- of a data set --------------------------------------------------------------------------------

cached_tokenizer = functools.lru_cache(1)(tokenizer)  # (a worker gets many parts of one data set)


def of_rows(folder: Path, rows: slice, name: str, codec: str) -> dict[str, np.ndarray]:
    """`tokens` (clips, codebooks, frames) uint16 of clips of the data set in `folder`."""
    machine.make_deterministic(1)
    sounds = np.load(folder / "audio.npy", mmap_mode="r")[rows].astype(np.float32) / 32768.0
    encode = cached_tokenizer(name, codec).encode
    return {"tokens": np.stack([encode(x) for x in sounds]).astype(np.uint16)}


def stage(profile: Profile, data: Dataset) -> stages.Stage:
    """data/<profile>/tokens: tokens of every clip, in the index's order."""
    own = (profile.token_codec, profile.codec)
    inputs = {"dataset": data.content, "weights": version_of(*own)}
    folder = paths.data(profile.profile) / "tokens"
    return stages.Stage("tokens", folder, {"codec": profile.token_codec}, inputs, threads=1)


def of_dataset(profile: Profile, data: Dataset) -> tuple[np.ndarray, Code]:
    """The tokens of every clip, (clips, codebooks, frames), and what they are.

    Made, resumed or found: `tokens.parquet`, bits packed.
    """
    own, made = (profile.token_codec, profile.codec), stage(profile, data)
    with made.opened() as work:
        if work:
            parts = {
                f"{a:07d}": (data.folder, slice(a, min(a + CHUNK, len(data))), *own)
                for a in range(0, len(data), CHUNK)
            }
            names = list(data.index["clip"].astype(str))
            made.finish(encoded(of_rows, parts, names, work, profile))
    return read(made.folder / FILE)[1:]


FILE = "tokens.parquet"


def encoded(of_part, parts: dict, names: list[str], work: Path, profile: Profile) -> str:
    """Write the tokens that `of_part` makes of all `parts`, in the folder `work`; their hash."""
    code = cached_tokenizer(profile.token_codec, profile.codec).code
    files = parallel.shards(of_part, parts, work / "shards", "tokens", profile.scheduler)
    found = np.concatenate([np.load(file)["tokens"] for file in files])
    write(work / FILE, names, found, code)
    return stages.array_digest(found)
