"""How the features of a tiled picture are grouped for the Perceiver of xGen-MM.

The published code puts the features of the crops together to the map of the whole picture, and then cuts this map into
as many groups as there are crops by counting row by row. Where the picture is more than one crop wide, a group is
therefore a horizontal strip, and no crop. The weights were trained so.
"""

import torch


def crops_to_strips(features: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """
    Args:
        features (`torch.Tensor` of shape `(rows * columns, side ** 2, channels)`): Of the crops, row by row.

    Returns:
        `torch.Tensor` of the same shape: strips of `side ** 2` positions of the whole map, from top to bottom.
    """
    num_crops, num_positions, channels = features.shape
    side = round(num_positions**0.5)
    crops = features.reshape(rows, columns, side, side, channels)
    return crops.transpose(1, 2).reshape(num_crops, num_positions, channels)


def strips_mask(height: int, width: int, rows: int, columns: int, side: int) -> torch.BoolTensor:
    """
    Masks the positions of the strips that show the picture and not only its padding.

    Args:
        height (`int`), width (`int`): Of the picture in pixels.
        rows (`int`), columns (`int`): Crops below and beside each other.
        side (`int`): Positions along the side of a crop.

    Returns:
        `torch.BoolTensor` of shape `(rows * columns, side ** 2)`.
    """
    map_height, map_width = rows * side, columns * side
    mask = torch.ones(map_height, map_width, dtype=torch.bool)
    # Positions and roundings as published: the border of the features is no exact image of that of the pixels.
    if width / height > map_width / map_height:
        border = (map_height - int(height * (map_width / width))) // 2
        mask[:border] = False
        mask[map_height - border :] = False
    else:
        border = (map_width - int(width * (map_height / height))) // 2
        mask[:, :border] = False
        mask[:, map_width - border :] = False
    return mask.reshape(rows * columns, side**2)


__all__ = ["crops_to_strips", "strips_mask"]
