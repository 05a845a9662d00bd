"""The Chinese catalogue: key -> sentence with {places}. The same keys and places as `en`."""

TEXTS: dict[str, str] = {
    "app.name": "ImpChat",
    "error.model.missing": "{path} 处没有模型：请选择其他模型，或把它放回原处。",
    "error.model.manifest_broken": "{path} 处模型的清单无法使用（{detail}）：请重新获取该模型。",
    "error.model.format_newer": "{path} 处的模型是为更新版本的 ImpChat 制作的（格式 {found}，当前最高支持 {known}）：请更新 ImpChat。",
    "error.model.file_missing": "{path} 处的模型缺少文件 {file}：请重新获取该模型。",
    "error.model.checksum": "{path} 处模型的文件 {file} 与清单不符：请重新获取该模型。",
    "error.model.target_occupied": "{path} 已存在且不是模型：请选择新的或空的文件夹。",
    "error.model.target_unwritable": "无法把模型写入 {path}（{detail}）：请换一个位置或腾出空间。",
    "error.data.unwritable": "无法写入文件夹 {path}；请用 IMPCHAT_DATA 指定另一个文件夹，或修改它的权限。",
    "error.image.empty": "文件是空的；请选择一个图片文件。",
    "error.image.too_large_bytes": "图片文件有 {megabytes} MB，最多接受 {limit} MB；请缩小后再试。",
    "error.image.too_many_pixels": "图片超过 {limit} 百万像素；请缩小后再试。",
    "error.image.truncated": "这个 {format} 文件已损坏或不完整；请重新获取该文件。",
    "error.image.not_an_image": "这不是 ImpChat 认识的图片；请选择 PNG、JPEG、WebP、GIF、AVIF 或 HEIC 文件。",
    "error.image.format_unsupported": "此处无法读取 {format} 文件；请把图片另存为 PNG 或 JPEG 后再试。",
}
