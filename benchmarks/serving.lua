-- Clients of benchmarks/serving.py, for wrk: send the lines "path<TAB>body" of a file in
-- turn; those without a body are GETs.
--
-- wrk's own percentiles mix the answers that count with the refused ones, so each is timed here by
-- its status. Each thread has one connection, as the script of a thread cannot tell two apart.
--
-- Arguments: the file; milliseconds that a client waits when it was refused (429).

local ffi = require("ffi")
ffi.cdef([[
  typedef struct { long s; long ns; } wrk_time;
  int clock_gettime(int clock, wrk_time *time);
]])
local time = ffi.new("wrk_time")
local lines, next_line, began, pause, threads = {}, 1, 0, 0, {}

local function now() -- milliseconds
  ffi.C.clock_gettime(1, time)
  return tonumber(time.s) * 1e3 + tonumber(time.ns) / 1e6
end

function setup(thread)
  table.insert(threads, thread)
  thread:set("number", #threads)
end

function init(arguments)
  for line in io.lines(arguments[1]) do
    local path, body = line:match("^(.-)\t(.*)$")
    local method = body == "" and "GET" or "POST"
    lines[#lines + 1] = wrk.format(method, path, { ["Content-Type"] = "application/json" }, body)
  end
  next_line = number * 7919 -- not all the same at once
  wait = tonumber(arguments[2])
  taken = ""
  parts = {}
end

function request()
  next_line = next_line + 1
  began = now()
  return lines[next_line % #lines + 1]
end

function delay() -- milliseconds before the next request
  return pause
end

function response(status)
  parts[#parts + 1] = string.format("%d %.3f", status, now() - began)
  pause = status == 429 and wait or 0
  if #parts == 1000 then
    taken = taken .. table.concat(parts, "\n") .. "\n"
    parts = {}
  end
end

function done()
  io.write("\ntimes\n")
  for _, thread in ipairs(threads) do
    io.write(thread:get("taken"))
    for _, each in ipairs(thread:get("parts")) do
      io.write(each, "\n")
    end
  end
end
