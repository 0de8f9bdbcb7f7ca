// Error values, returned by everything in the client header that can fail. Nothing here throws; the
// only exception that leaves the client header is std::bad_alloc. Plain values; any thread.
#pragma once

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

namespace ipcfs {

// An error: an errno, the operation that failed ("open framed/queue"; a literal), and the daemon's
// explanation, if it gave one.
struct Error {
    int code = 0;
    const char* operation = "";
    std::string reason{};

    // Text such as "send: Message too long: a payload may have 4294967296 bytes". strerrordesc_np
    // is not localized and, unlike strerror, thread-safe.
    std::string message() const {
        const char* known = ::strerrordesc_np(code);
        std::string text(operation);
        text.append(": ").append(known != nullptr ? known : "unknown error");
        if (!reason.empty()) text.append(": ").append(reason);
        return text;
    }
};

namespace detail {

// Using the value of a failed call is a bug of the caller; abort instead of continuing with garbage.
[[noreturn]] inline void no_value(const Error& error) noexcept {
    std::fprintf(stderr, "ipcfs: the value of a failed call was used: %s: errno %d\n",
                 error.operation, error.code);
    std::abort();
}

[[noreturn]] inline void no_error() noexcept {
    std::fputs("ipcfs: the error of a call that did not fail was used\n", stderr);
    std::abort();
}

inline Error last_error(const char* operation) {
    return Error{errno, operation};
}

}  // namespace detail

// Either a T, or the Error that says why there is none. Using the value of an error aborts with a
// message.
template <class T>
class [[nodiscard]] Expected {
public:
    using value_type = T;

    Expected(T value) : value_(std::move(value)) {}
    Expected(Error error) : error_(std::move(error)) {}

    bool has_value() const noexcept { return value_.has_value(); }
    explicit operator bool() const noexcept { return has_value(); }

    T& value() & { return *checked(); }
    const T& value() const& { return *const_cast<Expected*>(this)->checked(); }
    T&& value() && { return std::move(*checked()); }
    T& operator*() & { return *checked(); }
    const T& operator*() const& { return value(); }
    T&& operator*() && { return std::move(*checked()); }
    T* operator->() { return checked(); }
    const T* operator->() const { return &value(); }

    // Must only be called if there is no value.
    const Error& error() const& { return *failed(); }
    Error&& error() && { return std::move(*const_cast<Error*>(failed())); }

    template <class U>
    T value_or(U&& other) const& {
        return has_value() ? value() : static_cast<T>(std::forward<U>(other));
    }

private:
    T* checked() {
        if (!value_) detail::no_value(error_);
        return &*value_;
    }

    const Error* failed() const {
        if (value_) detail::no_error();
        return &error_;
    }

    // std::variant would take a third of the compile time of a program that uses this header.
    std::optional<T> value_;
    Error error_;
};

template <>
class [[nodiscard]] Expected<void> {
public:
    using value_type = void;

    Expected() = default;
    Expected(Error error) : error_(std::move(error)) {}

    bool has_value() const noexcept { return !error_.has_value(); }
    explicit operator bool() const noexcept { return has_value(); }
    void value() const {
        if (error_) detail::no_value(*error_);
    }
    const Error& error() const& {
        if (!error_) detail::no_error();
        return *error_;
    }
    Error&& error() && {
        if (!error_) detail::no_error();
        return std::move(*error_);
    }

private:
    std::optional<Error> error_;
};

}  // namespace ipcfs
