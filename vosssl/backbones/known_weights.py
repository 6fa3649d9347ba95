"""Released weights by name: where they are, how they are checked, under which licence.

Addresses were collected from the official repositories in November 2026 without opening them.
"""

from __future__ import annotations

from dataclasses import dataclass

_FB = "https://dl.fbaipublicfiles.com"
_HF = "https://huggingface.co"
_GITHUB = "https://github.com"
_TORCH = "https://download.pytorch.org/models"
_DRIVE = "https://drive.google.com/uc?id="
_DINOV3_FORM = (
    "they are under the DINOv3 licence: fill in the form at "
    "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/ and open the address that comes by "
    "mail with wget, not a browser"
)


@dataclass(frozen=True)
class WeightFile:
    """One released file.

    Attributes:
        url: its address.
        licence: of the weights, or of the code they come with.
        sha256: SHA-256 in hex or its first digits, where the authors state it.
        md5: MD5 in hex, where the authors state that instead.
        gated: how to get access, for files that need it.
    """

    url: str
    licence: str
    sha256: str | None = None
    md5: str | None = None
    gated: str | None = None


def _dino(folder: str) -> WeightFile:
    return WeightFile(f"{_FB}/dino/{folder}/{folder}.pth", "Apache 2.0")


def _dinov2(size: str, suffix: str = "") -> WeightFile:
    return WeightFile(
        f"{_FB}/dinov2/dinov2_vit{size}14/dinov2_vit{size}14{suffix}_pretrain.pth", "Apache 2.0"
    )


def _dinov3(arch: str, digits: str) -> WeightFile:
    name = f"dinov3_{arch}_pretrain_lvd1689m-{digits}.pth"
    return WeightFile(f"{_FB}/dinov3/dinov3_{arch}/{name}", "DINOv3", sha256=digits, gated=_DINOV3_FORM)


def _slots(repository: str, file: str) -> WeightFile:
    return WeightFile(f"{_HF}/{repository}/resolve/main/{file}", "MIT (code)")


def _cutie(file: str, md5: str | None = None) -> WeightFile:
    return WeightFile(f"{_GITHUB}/hkchengrex/Cutie/releases/download/v1.0/{file}", "MIT", md5=md5)


def _sam2(version: str, file: str) -> WeightFile:
    return WeightFile(f"{_FB}/segment_anything_2/{version}/{file}.pt", "Apache 2.0")


def _segformer(repository: str) -> WeightFile:
    # recalled: non-commercial research use
    return WeightFile(
        f"{_HF}/nvidia/{repository}/resolve/main/pytorch_model.bin", "NVIDIA Source Code License"
    )


KNOWN_WEIGHTS: dict[str, WeightFile] = {
    "dino-vits16": _dino("dino_deitsmall16_pretrain"),
    "dino-vits8": _dino("dino_deitsmall8_pretrain"),
    "dino-vitb16": _dino("dino_vitbase16_pretrain"),
    "dino-vitb8": _dino("dino_vitbase8_pretrain"),
    "dino-resnet50": _dino("dino_resnet50_pretrain"),
    "dinov2-vits14": _dinov2("s"),
    "dinov2-vitb14": _dinov2("b"),
    "dinov2-vitl14": _dinov2("l"),
    "dinov2-vits14-reg": _dinov2("s", "_reg4"),
    "dinov2-vitb14-reg": _dinov2("b", "_reg4"),
    "dinov2-vitl14-reg": _dinov2("l", "_reg4"),
    "dinov3-vits16": _dinov3("vits16", "08c60483"),
    "dinov3-vitb16": _dinov3("vitb16", "73cec8be"),
    "dinov3-vitl16": _dinov3("vitl16", "8aa4cbdd"),
    "videosaur-movi-c": _slots("andriizadaianchuk/videosaur-movi-c", "videosaur-movi-c.ckpt"),
    "videosaur-movi-e": _slots("andriizadaianchuk/videosaur-movi-e", "videosaur-movi-e.ckpt"),
    "videosaur-ytvis": _slots("andriizadaianchuk/videosaur-ytvis", "videosaur-ytvis.ckpt"),
    "videosaur-ytvis-dinov2": _slots("andriizadaianchuk/videosaur-ytvis-dinov2-518", "videosaur_dinov2.ckpt"),
    "dinosaur-coco-dinov2": _slots("andriizadaianchuk/dinosaur_dinov2", "coco_dinosaur_base14_dinov2.ckpt"),
    "slotcontrast-movi-c": _slots("annamanasyan/slotcontrast", "movi_c.ckpt"),
    "slotcontrast-movi-e": _slots("annamanasyan/slotcontrast", "movi_e.ckpt"),
    "slotcontrast-ytvis": _slots("annamanasyan/slotcontrast", "ytvis.ckpt"),
    "resnet18-imagenet": WeightFile(f"{_TORCH}/resnet18-5c106cde.pth", "BSD", sha256="5c106cde"),
    "resnet50-imagenet": WeightFile(f"{_TORCH}/resnet50-19c8e357.pth", "BSD", sha256="19c8e357"),
    "crw-resnet18": WeightFile(f"{_GITHUB}/ajabri/videowalk/raw/master/pretrained.pth", "MIT"),
    "vfs-resnet18": WeightFile(
        f"{_GITHUB}/xvjiarui/VFS/releases/download/v0.1-rc1/r18_nc_sgd_cos_100e_r2_1xNx8_k400-db1a4c0d.pth",
        "Apache 2.0",
        sha256="db1a4c0d",
    ),
    "vfs-resnet50": WeightFile(
        f"{_GITHUB}/xvjiarui/VFS/releases/download/v0.1-rc1/r50_nc_sgd_cos_100e_r5_1xNx2_k400-d7ce3ad0.pth",
        "Apache 2.0",
        sha256="d7ce3ad0",
    ),
    "stcn": WeightFile(f"{_DRIVE}1mRrE0uCI2ktdWlUgapJI_KmgeIiF2eOm", "MIT"),
    "stcn-s03": WeightFile(f"{_DRIVE}1JllXPJZola0G-g1aUQfXe9nLMBioj-aH", "MIT"),
    "cutie-base": _cutie("cutie-base-mega.pth", md5="a6071de6136982e396851903ab4c083a"),
    "cutie-base-nomose": _cutie("cutie-base-nomose.pth"),
    "cutie-base-wmose": _cutie("cutie-base-wmose.pth"),
    "cutie-small": _cutie("cutie-small-mega.pth"),
    "cutie-small-nomose": _cutie("cutie-small-nomose.pth"),
    "cutie-small-wmose": _cutie("cutie-small-wmose.pth"),
    "sam2-hiera-tiny": _sam2("072824", "sam2_hiera_tiny"),
    "sam2-hiera-small": _sam2("072824", "sam2_hiera_small"),
    "sam2-hiera-base-plus": _sam2("072824", "sam2_hiera_base_plus"),
    "sam2-hiera-large": _sam2("072824", "sam2_hiera_large"),
    "sam2.1-hiera-tiny": _sam2("092824", "sam2.1_hiera_tiny"),
    "sam2.1-hiera-small": _sam2("092824", "sam2.1_hiera_small"),
    "sam2.1-hiera-base-plus": _sam2("092824", "sam2.1_hiera_base_plus"),
    "sam2.1-hiera-large": _sam2("092824", "sam2.1_hiera_large"),
    **{f"mit-b{size}": _segformer(f"mit-b{size}") for size in range(6)},
    **{f"segformer-b{size}-ade": _segformer(f"segformer-b{size}-finetuned-ade-512-512") for size in range(5)},
    "segformer-b5-ade": _segformer("segformer-b5-finetuned-ade-640-640"),
    "mobile-sam": WeightFile(
        f"{_GITHUB}/hkchengrex/Tracking-Anything-with-DEVA/releases/download/v1.0/mobile_sam.pt", "Apache 2.0"
    ),
}
