"""The English catalogue: key -> sentence with {places}. The same keys and places as `zh`."""

TEXTS: dict[str, str] = {
    "app.name": "ImpChat",
    "error.model.missing": "There is no model at {path}: choose another one, or put it there again.",
    "error.model.manifest_broken": "The manifest of the model at {path} cannot be used ({detail}): get the model again.",
    "error.model.format_newer": "The model at {path} was made for a newer ImpChat (format {found}, known up to {known}): update ImpChat.",
    "error.model.file_missing": "The model at {path} lacks its file {file}: get the model again.",
    "error.model.checksum": "The file {file} of the model at {path} is not the one its manifest names: get the model again.",
    "error.model.target_occupied": "{path} exists and is not a model: choose a new or empty folder.",
    "error.model.target_unwritable": "The model cannot be written to {path} ({detail}): choose another place or free some space.",
    "error.data.unwritable": "The folder {path} cannot be written; choose another with IMPCHAT_DATA or change its permissions.",
    "error.image.empty": "The file is empty; choose a picture file.",
    "error.image.too_large_bytes": "The picture file has {megabytes} MB and at most {limit} MB are taken; save it smaller and try again.",
    "error.image.too_many_pixels": "The picture has more than {limit} million pixels; scale it down and try again.",
    "error.image.truncated": "The {format} file is damaged or cut short; get it again from where it came from.",
    "error.image.not_an_image": "This file is not a picture that ImpChat knows; choose a PNG, JPEG, WebP, GIF, AVIF or HEIC file.",
    "error.image.format_unsupported": "ImpChat cannot read {format} files here; save the picture as PNG or JPEG and try again.",
}
