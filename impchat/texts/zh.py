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
}
