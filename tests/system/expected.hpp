// Expectations of what the client header returns.
#pragma once

#include <gtest/gtest.h>

// EXPECT_OK(call): it did not fail, and if it did, why.
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
