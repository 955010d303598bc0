from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ValidateGraderRequest(_message.Message):
    __slots__ = ("grader",)
    GRADER_FIELD_NUMBER: _ClassVar[int]
    grader: _struct_pb2.Struct
    def __init__(self, grader: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class ValidateGraderResponse(_message.Message):
    __slots__ = ("grader",)
    GRADER_FIELD_NUMBER: _ClassVar[int]
    grader: _struct_pb2.Struct
    def __init__(self, grader: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class RunGraderRequest(_message.Message):
    __slots__ = ("grader", "model_sample", "item")
    GRADER_FIELD_NUMBER: _ClassVar[int]
    MODEL_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    grader: _struct_pb2.Struct
    model_sample: str
    item: _struct_pb2.Struct
    def __init__(self, grader: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., model_sample: _Optional[str] = ..., item: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class RunGraderResponse(_message.Message):
    __slots__ = ("reward", "metadata", "sub_rewards", "model_grader_token_usage_per_model")
    class SubRewardsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    REWARD_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    SUB_REWARDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_GRADER_TOKEN_USAGE_PER_MODEL_FIELD_NUMBER: _ClassVar[int]
    reward: float
    metadata: _struct_pb2.Struct
    sub_rewards: _containers.ScalarMap[str, float]
    model_grader_token_usage_per_model: _struct_pb2.Struct
    def __init__(self, reward: _Optional[float] = ..., metadata: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., sub_rewards: _Optional[_Mapping[str, float]] = ..., model_grader_token_usage_per_model: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...
