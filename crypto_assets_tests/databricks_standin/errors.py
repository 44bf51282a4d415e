"""Errors as the workspace answers them."""

from __future__ import annotations


class ApiError(Exception):
    """A call that is refused: HTTP status, Databricks' error code, and a message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error_code": code, "message": message}


def invalid(message: str) -> ApiError:
    """400: a parameter is wrong."""
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)


def absent(message: str) -> ApiError:
    """404: what is named does not exist."""
    return ApiError(404, "RESOURCE_DOES_NOT_EXIST", message)


def exists(message: str) -> ApiError:
    """400: what is to be made is there already."""
    return ApiError(400, "RESOURCE_ALREADY_EXISTS", message)
