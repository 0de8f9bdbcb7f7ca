// Expectations for results of the client header.
#pragma once

#include <gtest/gtest.h>

// EXPECT_OK(call) fails with the error's message.
#define EXPECT_OK(call)                                                  \
    do {                                                                 \
        auto&& outcome_ = (call);                                        \
        EXPECT_TRUE(outcome_.has_value()) << outcome_.error().message(); \
    } while (false)
#define EXPECT_FAILS(code_, call)                                                  \
    do {                                                                           \
        auto&& outcome_ = (call);                                                  \
        EXPECT_FALSE(outcome_.has_value());                                        \
        if (!outcome_.has_value()) {                                               \
            EXPECT_EQ(outcome_.error().code, code_) << outcome_.error().message(); \
        }                                                                          \
    } while (false)
