"""Subgroups and flip pairs of SPair-71k and AP-10K, by annotation id (data sets' facts; paper, table 6).

Subgroups of a single keypoint are left out, and so are parts too close together to be told apart by a
distance (eyes, nostrils). Flip pairs are complete.
"""

from __future__ import annotations

from collections.abc import Mapping

from geoaware.method.keypoints.schema import Schema

SPAIR71K_IDS = 30
"""Every SPair-71k image annotates ids 0 … 29, with null where there is nothing."""

AP10K_NAMES = (
    "left_eye",
    "right_eye",
    "nose",
    "neck",
    "root_of_tail",
    "left_shoulder",
    "left_elbow",
    "left_front_paw",
    "right_shoulder",
    "right_elbow",
    "right_front_paw",
    "left_hip",
    "left_knee",
    "left_back_paw",
    "right_hip",
    "right_knee",
    "right_back_paw",
)

_SPAIR71K: Mapping[str, tuple[dict[str, tuple[int, ...]], tuple[tuple[int, int], ...]]] = {
    "aeroplane": (
        {
            "landing gear": (4, 5),
            "engine front": (6, 7),
            "wing end": (8, 9),
            "engine back": (10, 11),
            "wing foot front": (12, 13),
            "wing foot back": (14, 15),
            "tailplane end": (16, 17),
            "tailplane foot front": (18, 19),
            "tailplane foot back": (20, 21),
        },
        ((4, 5), (6, 7), (8, 9), (10, 11), (12, 13), (14, 15), (16, 17), (18, 19), (20, 21)),
    ),
    "bicycle": (
        {
            "handle": (2, 3),
            "seat back end": (6, 7),
            "pedal": (9, 10),
        },
        ((2, 3), (6, 7), (9, 10)),
    ),
    "bird": (
        {
            "wing end": (1, 2),
            "foot": (10, 11),
            "knee": (12, 13),
            "hip": (14, 15),
        },
        ((1, 2), (4, 5), (7, 8), (10, 11), (12, 13), (14, 15)),
    ),
    "boat": (
        {
            "upper front": (1, 2),
            "upper side": (3, 4),
            "upper back": (5, 6),
            "lower front": (7, 8),
            "lower side": (9, 10),
            "lower back": (11, 12),
        },
        ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12)),
    ),
    "bottle": (
        {
            "cap": (0, 1),
            "neck": (2, 3),
            "shoulder": (4, 5),
            "body": (6, 7),
            "base": (8, 9),
        },
        ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9)),
    ),
    "bus": (
        {
            "rear-view mirror": (0, 1),
            "light": (2, 3, 5, 6),
            "licence plate": (4, 7),
            "front fender": (10, 13, 20, 23),
            "wheel": (11, 14, 21, 24),
            "rear fender": (12, 15, 22, 25),
            "window top corner": (16, 17, 26, 27),
            "window bottom corner": (18, 19, 28, 29),
        },
        (
            (0, 1),
            (2, 3),
            (5, 6),
            (10, 20),
            (13, 23),
            (11, 21),
            (14, 24),
            (12, 22),
            (15, 25),
            (16, 17),
            (26, 27),
            (18, 19),
            (28, 29),
        ),
    ),
    "car": (
        {
            "rear-view mirror": (0, 1),
            "light": (2, 3, 6, 7),
            "licence plate": (4, 8),
            "brand logo": (5, 9),
            "rear fender": (10, 13, 20, 23),
            "wheel": (11, 14, 21, 24),
            "front fender": (12, 15, 22, 25),
            "window bottom corner": (16, 17, 26, 27),
            "window top corner": (18, 19, 28, 29),
        },
        (
            (0, 1),
            (2, 3),
            (6, 7),
            (10, 20),
            (13, 23),
            (11, 21),
            (14, 24),
            (12, 22),
            (15, 25),
            (16, 17),
            (26, 27),
            (18, 19),
            (28, 29),
        ),
    ),
    "cat": (
        {
            "ear": (2, 3),
            "paw": (9, 10, 11, 12),
        },
        ((0, 1), (2, 3), (4, 5), (6, 7), (9, 10), (11, 12)),
    ),
    "chair": (
        {
            "cushion front": (0, 1),
            "cushion back": (2, 3),
            "leg": (4, 5, 6, 7),
            "backrest top": (8, 9),
            "armrest front": (10, 11),
            "armrest back": (12, 13),
        },
        ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11), (12, 13)),
    ),
    "cow": (
        {
            "ear": (2, 3),
            "hoof": (9, 10, 11, 12),
            "knee": (15, 16, 17, 18),
            "horn": (19, 20),
        },
        ((0, 1), (2, 3), (4, 5), (6, 7), (9, 10), (11, 12), (15, 16), (17, 18), (19, 20)),
    ),
    "dog": (
        {
            "ear": (2, 3),
            "paw": (9, 10, 11, 12),
        },
        ((0, 1), (2, 3), (4, 5), (9, 10), (11, 12)),
    ),
    "horse": (
        {
            "ear": (2, 3),
            "hoof": (10, 11, 12, 13),
            "knee": (16, 17, 18, 19),
        },
        ((0, 1), (2, 3), (4, 5), (6, 7), (10, 11), (12, 13), (16, 17), (18, 19)),
    ),
    "motorbike": (
        {
            "rear-view mirror": (0, 1),
            "handle": (2, 3),
        },
        ((0, 1), (2, 3)),
    ),
    "person": (
        {
            "shoulder": (8, 9),
            "elbow": (10, 11),
            "wrist": (12, 13),
            "knee": (14, 15),
            "ankle": (16, 17),
            "foot": (18, 19),
        },
        ((0, 1), (2, 3), (8, 9), (10, 11), (12, 13), (14, 15), (16, 17), (18, 19)),
    ),
    "pottedplant": (
        {
            "top": (0, 1, 2, 3),
            "side wall": (4, 5),
            "bottom": (6, 8),
        },
        ((0, 2), (4, 5), (6, 8)),
    ),
    "sheep": (
        {
            "ear": (2, 3),
            "hoof": (9, 10, 11, 12),
            "knee": (15, 16, 17, 18),
            "horn": (19, 20),
        },
        ((0, 1), (2, 3), (4, 5), (6, 7), (9, 10), (11, 12), (15, 16), (17, 18), (19, 20)),
    ),
    "train": (
        {
            "front top": (0, 1),
            "front bottom": (2, 3),
            "back top": (4, 5),
            "back bottom": (6, 7),
            "window corner top outer": (8, 9),
            "window corner bottom outer": (10, 11),
            "window corner top inner": (12, 13),
            "window corner bottom inner": (14, 15),
            "front light": (16, 17),
        },
        ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11), (12, 13), (14, 15), (16, 17)),
    ),
    "tvmonitor": (
        {
            "outer corner": (0, 2, 4, 6),
            "outer side": (1, 3, 5, 7),
            "inner corner": (8, 10, 12, 14),
            "inner side": (9, 11, 13, 15),
        },
        ((0, 2), (4, 6), (3, 7), (8, 10), (12, 14), (11, 15)),
    ),
}


def _spair_schema(subgroups: dict[str, tuple[int, ...]], flip_pairs: tuple[tuple[int, int], ...]) -> Schema:
    # SPair-71k's files give no names: the part where it is known, and always the id.
    names = {each: f"keypoint {each}" for each in range(SPAIR71K_IDS)}
    names |= {each: f"{part} {each}" for part, members in subgroups.items() for each in members}
    return Schema(names, subgroups, flip_pairs)


SPAIR71K: Mapping[str, Schema] = {category: _spair_schema(*table) for category, table in _SPAIR71K.items()}
"""Schema of each of the 18 categories."""

AP10K = Schema(
    AP10K_NAMES,
    {
        "shoulder": (5, 8),
        "elbow or knee": (6, 9, 12, 15),
        "paw": (7, 10, 13, 16),
        "hip": (11, 14),
    },
    ((0, 1), (5, 8), (6, 9), (12, 15), (7, 10), (13, 16), (11, 14)),
)
"""Schema of all AP-10K species; left and right are the animal's own."""
