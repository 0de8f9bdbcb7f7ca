#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include <insight/table.hpp>

namespace ipcfs::insight {
namespace {

TEST(Table, IsOnlyItsHeaderWithoutRows) {
    EXPECT_EQ(Table({"channel", "depth"}).text(), "channel\tdepth\n");
}

TEST(Table, WritesALineARow) {
    Table table({"channel", "depth", "change"});
    table.row().cell("jobs").cell(std::uint64_t{3}).cell(-1);
    table.row()
        .cell("")
        .cell(std::numeric_limits<std::uint64_t>::max())
        .cell(std::numeric_limits<std::int64_t>::min());
    EXPECT_EQ(std::move(table).text(),
              "channel\tdepth\tchange\n"
              "jobs\t3\t-1\n"
              "\t18446744073709551615\t-9223372036854775808\n");
}

TEST(Table, EscapesWhatWouldBreakALine) {
    Table table({"channel"});
    table.row().cell(std::string_view("a\tb\nc\\d\re\x01\x7f\0z", 13));
    EXPECT_EQ(std::move(table).text(), "channel\na\\tb\\nc\\\\d\\re\\x01\\x7f\\x00z\n");
}

TEST(Table, LeavesUtf8Alone) {
    EXPECT_EQ(escaped("gr\xc3\xbc\xc3\x9f"), "gr\xc3\xbc\xc3\x9f");
}

TEST(TableDeathTest, ARowWithTooFewOrTooManyCellsIsABug) {
    EXPECT_DEATH(
        {
            Table table({"a", "b"});
            table.row().cell("1");
            table.row();
        },
        "cells_ == columns_");
    EXPECT_DEATH(
        {
            Table table({"a"});
            table.row().cell("1").cell("2");
        },
        "cells_ < columns_");
}

}  // namespace
}  // namespace ipcfs::insight
