-- Pushes the blobs named in the file that BLOBS names, each once: POST, then PUT of the whole. To be run with one thread
-- and one connection. A line of the file is "DIGEST FILE". Ends the process when it is done.
local blobs, at, location = {}, 1, nil

for line in io.lines(os.getenv("BLOBS")) do
  local digest, file = line:match("^(%S+)%s+(%S+)$")
  blobs[#blobs + 1] = { digest = digest, file = file }
end

local function headers(length)
  return {
    ["Authorization"] = wrk.headers["Authorization"],
    ["Content-Type"] = "application/octet-stream",
    ["Content-Length"] = tostring(length),
  }
end

function request()
  if not location then
    return wrk.format("POST", "/v2/team/bench/blobs/uploads/", headers(0))
  end
  local file = assert(io.open(blobs[at].file, "rb"))
  local bytes = file:read("*a")
  file:close()
  local target = location:gsub("^https?://[^/]*", "")
  local separator = target:find("?", 1, true) and "&" or "?"
  return wrk.format("PUT", target .. separator .. "digest=" .. blobs[at].digest, headers(#bytes), bytes)
end

function response(status, headers)
  if status == 202 then
    location = headers["Location"] or headers["location"]
  elseif status == 201 then
    location, at = nil, at + 1
    if at > #blobs then os.exit(0) end
  else
    io.stderr:write("a push was answered with status " .. status .. "\n")
    os.exit(1)
  end
end

-- Only after the time given on the command line.
function done()
  os.exit(1)
end
